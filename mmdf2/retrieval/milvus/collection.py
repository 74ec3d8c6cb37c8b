"""The two collections of a gallery in Milvus: their columns, the index of the items, and the gallery's description."""

import base64
import json
import logging
from dataclasses import dataclass, replace

import numpy as np

from mmdf2.retrieval.calibration import Calibration
from mmdf2.retrieval.gallery import GalleryError
from mmdf2.retrieval.milvus.client import MilvusConnection, import_pymilvus
from mmdf2.retrieval.similarity import DistanceSpace, InnerProductSpace, Similarity

_LOGGER = logging.getLogger(__name__)
LONGEST_TEXT = 65_535  # bytes of a text in Milvus
WIDEST_EMBEDDING = 4096  # numbers that an array of Milvus holds
MOST_MARKS = 4096
HOUR = 3600.0  # seconds that building or loading an index may take

_FORMAT = 1
_MANIFEST, _WEIGHT, _CENTRE, _NEXT_ID = range(4)  # rows of the description


@dataclass(frozen=True)
class Description:
    """What a gallery in Milvus says of itself.

    Attributes:
        similarity: The match head's similarity.
        model: What identifies the model.
        space: The space of the searched vectors; None until the first items come.
        mixed: Whether the radius of the space has grown, so that older vectors have another last column. Distances see
            that column, inner products do not.
        calibration: What the scores of hits mean, or None.
    """

    similarity: Similarity
    model: str
    space: DistanceSpace | None = None
    mixed: bool = False
    calibration: Calibration | None = None

    def with_space(self, space: DistanceSpace, mixed: bool) -> 'Description':
        """The same description with another space."""
        return replace(self, space=space, mixed=mixed)


class DescriptionCollection:
    """The small collection, beside the items' one, that holds a gallery's description and its next id.

    Args:
        connection: The connection to Milvus.
        collection: Name of the items' collection.
    """

    def __init__(self, connection: MilvusConnection, collection: str) -> None:
        self._connection, self.name = connection, f'{collection}_about'
        self._owner = f"'{collection}' at {connection.uri}"

    def open(self) -> bool:
        """Prepares the collection for reading; returns whether it exists, which does not say that it has rows."""
        if not self._connection.call('has_collection', self.name):
            return False
        if not self._connection.call('list_indexes', self.name):
            # The process that made the collection was killed before it made the index.
            self._connection.call('create_index', self.name, self._index_params(), patience=60)
        self._connection.call('load_collection', self.name, patience=60)
        return True

    def create(self) -> None:
        """Makes the collection, without rows."""
        pymilvus = import_pymilvus()
        schema = pymilvus.MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field('id', pymilvus.DataType.INT64, is_primary=True)
        schema.add_field('text', pymilvus.DataType.VARCHAR, max_length=LONGEST_TEXT)
        # Milvus makes no collection without a vector.
        schema.add_field('vector', pymilvus.DataType.FLOAT_VECTOR, dim=2)
        params = self._index_params()
        self._connection.call(
            'create_collection', self.name, schema=schema, index_params=params, consistency_level='Strong', patience=60
        )

    @staticmethod
    def _index_params():
        params = import_pymilvus().MilvusClient.prepare_index_params()
        params.add_index('vector', index_type='FLAT', metric_type='L2')
        return params

    def write(self, description: Description) -> None:
        """Writes the description. The manifest comes last, so a gallery without one is known to be unfinished."""
        similarity, space = description.similarity, description.space
        manifest = dict(
            format=_FORMAT,
            model=description.model,
            width=similarity.width,
            bias=similarity.bias.tolist(),
            fingerprint=similarity.fingerprint(),
            scale=space and space.products.scale,
            radius=space and space.radius,
            mixed=description.mixed,
            calibration=description.calibration and description.calibration.to_json(),
        )
        self._write(_WEIGHT, _encoded(similarity.weight, '<f4'))
        self._write(_CENTRE, _encoded(space.products.centre, '<f8') if space else '')
        self._write(_MANIFEST, json.dumps(manifest))

    def read(self) -> Description | None:
        """The description; None when the process that made the gallery was killed before it was finished.

        Raises:
            GalleryError: It is damaged, or of a format that this version does not read.
        """
        return self._described(self._rows())

    def _described(self, rows: dict[int, str]) -> Description | None:
        if _MANIFEST not in rows:
            return None
        try:
            manifest = json.loads(rows[_MANIFEST])
            if manifest['format'] != _FORMAT:
                raise ValueError(f'format {manifest["format"]!r}, this version reads {_FORMAT}')
            weight = _decoded(rows[_WEIGHT], '<f4').reshape(2, manifest['width'])
            similarity = Similarity(weight, np.array(manifest['bias'], np.float32))
            if similarity.fingerprint() != manifest['fingerprint']:
                raise ValueError('the weights are not those of the fingerprint')
            # Galleries of mmdf2 0.1 have none.
            known = manifest.get('calibration')
            calibration = None if known is None else Calibration.from_json(known)
            description = Description(similarity, str(manifest['model']), calibration=calibration)
            if manifest['scale'] is None:
                return description
            centre = _decoded(rows[_CENTRE], '<f8').reshape(similarity.width)
            radius = None if manifest['radius'] is None else float(manifest['radius'])
            space = DistanceSpace(InnerProductSpace(similarity, centre, float(manifest['scale'])), radius)
            return description.with_space(space, bool(manifest['mixed']))
        except (KeyError, TypeError, ValueError) as error:
            raise GalleryError(f'the collection {self.name} of gallery {self._owner} is damaged: {error!r}') from error

    def read_with_next_id(self) -> tuple[Description | None, int]:
        """The description as ``read`` gives it, and the smallest id that was never given, by one read.

        Raises:
            GalleryError: One of them is missing or damaged, or of a format that this version does not read.
        """
        rows = self._rows()
        text = rows.get(_NEXT_ID, '')
        if not text.isdecimal():
            raise GalleryError(f'the collection {self.name} of gallery {self._owner} is damaged: next id {text!r}')
        return self._described(rows), int(text)

    def write_next_id(self, number: int) -> None:
        """Reserves all ids below a number."""
        self._write(_NEXT_ID, str(number))

    def _rows(self) -> dict[int, str]:
        found = self._connection.read('query', self.name, ids=list(range(4)), output_fields=['id', 'text'])
        return {int(row['id']): row['text'] for row in found}

    def _write(self, number: int, text: str) -> None:
        self._connection.call('upsert', self.name, [{'id': number, 'text': text, 'vector': [0.0, 0.0]}])


class ItemIndex:
    """The index over the searched vectors of the items' collection.

    Args:
        connection: The connection to Milvus.
        collection: Name of the items' collection.
    """

    def __init__(self, connection: MilvusConnection, collection: str) -> None:
        self._connection, self._collection = connection, collection
        self._known: dict | None = None

    def known(self) -> dict:
        """The answer of ``describe`` when it was last asked. Another process may have exchanged the index since."""
        if self._known is None:
            self._known = self.describe()
        return self._known

    def has_changed(self) -> bool:
        """Asks ``describe`` again, and returns whether kind or metric differ from what was known before."""
        before, self._known = self._known, self.describe()
        return before is None or any(
            self._known.get(name) != before.get(name) for name in ('index_type', 'metric_type')
        )

    def describe(self) -> dict:
        """What Milvus says of the index, such as ``index_type`` and ``metric_type``; empty when there is none."""
        if 'vector' not in self._connection.call('list_indexes', self._collection):
            return {}
        return self._connection.call('describe_index', self._collection, 'vector') or {}

    def kind(self) -> str | None:
        """FLAT, which searches exactly, or HNSW, a graph; None when there is no index."""
        return self.describe().get('index_type')

    def exchange(self, kind: str, metric: str) -> None:
        """Builds an index in place of the present one; returns when it can be searched."""
        if self.kind() is not None:
            self._connection.call('release_collection', self._collection)
            self._connection.call('drop_index', self._collection, 'vector', patience=60)
        self._known = None
        params = index_params(kind, metric)
        self._connection.call('create_index', self._collection, params, patience=HOUR)
        self._connection.call('load_collection', self._collection, patience=HOUR)

    def add_marks(self) -> None:
        """Adds an index for searches by field, where the server has one for arrays: from Milvus 2.4 on."""
        if (self._connection.version or (2, 4)) < (2, 4):
            _LOGGER.warning('searches by field will read all items: Milvus before 2.4 has no index for them')
            return
        params = import_pymilvus().MilvusClient.prepare_index_params()
        params.add_index('marks', index_type='INVERTED', index_name='marks')
        try:
            self._connection.call('create_index', self._collection, params, patience=60)
        except GalleryError as error:
            _LOGGER.warning('searches by field will read all items: %s', error)


def create_item_collection(connection: MilvusConnection, collection: str, similarity: Similarity) -> None:
    """Makes the collection of a gallery's items, without items.

    Its columns are id, category, vector (in the searched space), embedding, marks (see
    :func:`mmdf2.retrieval.milvus.rows.mark`), image and details. The embedding is kept besides the searched vector,
    which is rounded and lacks the columns of weight 0.

    Args:
        connection: The connection to Milvus.
        collection: The collection's name.
        similarity: The match head's similarity; its width is at most 4096.
    """
    pymilvus = import_pymilvus()
    types, width = pymilvus.DataType, similarity.width
    searched_width = width + (0 if similarity.is_distance else 2)
    schema = pymilvus.MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field('id', types.INT64, is_primary=True)
    schema.add_field('category', types.INT64, is_partition_key=True)
    schema.add_field('vector', types.FLOAT_VECTOR, dim=searched_width)
    schema.add_field('embedding', types.ARRAY, element_type=types.FLOAT, max_capacity=width)
    schema.add_field('marks', types.ARRAY, element_type=types.INT64, max_capacity=MOST_MARKS)
    schema.add_field('image', types.VARCHAR, max_length=LONGEST_TEXT)
    schema.add_field('details', types.VARCHAR, max_length=LONGEST_TEXT)
    connection.call(
        'create_collection',
        collection,
        schema=schema,
        index_params=index_params('FLAT', exact_metric(similarity)),
        consistency_level='Strong',
        patience=60,
    )


def exact_metric(similarity: Similarity) -> str:
    """The metric of exact search: L2 without positive weights, otherwise the inner product, whatever the radius is."""
    return 'L2' if similarity.is_distance else 'IP'


def index_params(kind: str, metric: str):
    """Milvus's parameters of an index over the searched vectors."""
    params = import_pymilvus().MilvusClient.prepare_index_params()
    # milvus-lite drops what is not nested in ``params``.
    build = dict(M=16, efConstruction=200) if kind == 'HNSW' else {}
    params.add_index('vector', index_type=kind, index_name='vector', metric_type=metric, params=build)
    return params


def _encoded(values: np.ndarray, dtype: str) -> str:
    return base64.b64encode(values.astype(dtype).tobytes()).decode()


def _decoded(text: str, dtype: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text, validate=True), dtype).astype(dtype[1:])
