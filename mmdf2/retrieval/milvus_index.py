"""The index of a gallery in Milvus, and what is exact for which similarity."""

import logging

from mmdf2.retrieval.gallery import GalleryError
from mmdf2.retrieval.milvus_client import MilvusConnection
from mmdf2.retrieval.similarity import Similarity

_LOGGER = logging.getLogger(__name__)
HOUR = 3600.0  # seconds that building or loading an index may take


class MilvusIndex:
    """The index of the searched vectors.

    Args:
        connection: Where.
        collection: The items' collection.
    """

    def __init__(self, connection: MilvusConnection, collection: str) -> None:
        self._connection, self._collection = connection, collection
        self._known: dict | None = None

    def known(self) -> dict:
        """As ``describe``, when last it was asked: another process may have exchanged it since."""
        if self._known is None:
            self._known = self.describe()
        return self._known

    def has_changed(self) -> bool:
        """Whether it is another than the known one; now this one is known."""
        before, self._known = self._known, self.describe()
        return before is None or any(
            self._known.get(name) != before.get(name) for name in ('index_type', 'metric_type')
        )

    def describe(self) -> dict:
        """What Milvus says of it, such as ``index_type`` and ``metric_type``; empty when there is none."""
        if 'vector' not in self._connection.call('list_indexes', self._collection):
            return {}
        return self._connection.call('describe_index', self._collection, 'vector') or {}

    def kind(self) -> str | None:
        """FLAT or HNSW; None when there is no index."""
        return self.describe().get('index_type')

    def exchange(self, kind: str, metric: str) -> None:
        """Builds another index in place of what is there; returns when it can be searched."""
        if self.kind() is not None:
            self._connection.call('release_collection', self._collection)
            self._connection.call('drop_index', self._collection, 'vector', patience=60)
        self._known = None
        params = index_params(kind, metric)
        self._connection.call('create_index', self._collection, params, patience=HOUR)
        self._connection.call('load_collection', self._collection, patience=HOUR)

    def add_marks(self) -> None:
        """Has searches by field read an index where the server can: milvus-lite's has none for arrays."""
        from pymilvus import MilvusClient

        params = MilvusClient.prepare_index_params()
        params.add_index('marks', index_type='INVERTED', index_name='marks')
        try:
            self._connection.call('create_index', self._collection, params, patience=60)
        except GalleryError as error:
            _LOGGER.warning('searches by field will read all items: %s', error)


def searched_width(similarity: Similarity) -> int:
    """Of the vectors that Milvus searches: those of ``DistanceSpace``."""
    return similarity.width + (0 if (similarity.difference <= 0).all() else 2)


def exact_metric(similarity: Similarity) -> str:
    """Without positive weights distances rank as they are; else the inner product does, whatever the radius."""
    return 'L2' if (similarity.difference <= 0).all() else 'IP'


def index_params(kind: str, metric: str):
    """Milvus's parameters of an index over the vectors."""
    from pymilvus import MilvusClient

    params = MilvusClient.prepare_index_params()
    # milvus-lite drops what is not nested in ``params``.
    build = dict(M=16, efConstruction=200) if kind == 'HNSW' else {}
    params.add_index('vector', index_type=kind, index_name='vector', metric_type=metric, params=build)
    return params
