"""What a gallery in Milvus says of itself, in a small collection beside the items'."""

import base64
import json
from dataclasses import dataclass, replace

import numpy as np

from mmdf2.retrieval.gallery import GalleryError
from mmdf2.retrieval.milvus_client import MilvusConnection
from mmdf2.retrieval.reduction import DistanceSpace, InnerProductSpace
from mmdf2.retrieval.similarity import Similarity

_FORMAT = 1
_MANIFEST, _WEIGHT, _CENTRE, _NEXT_ID = range(4)  # the rows
_LONGEST = 65_535  # bytes of a text in Milvus


@dataclass(frozen=True)
class About:
    """What a gallery says of itself.

    Attributes:
        similarity: The match head's.
        model: What tells the model apart.
        space: That of the searched vectors; None until the first items come.
        mixed: Whether the radius of the space grew, so that older vectors have another last column: it counts for
            distances, and is nothing to inner products.
    """

    similarity: Similarity
    model: str
    space: DistanceSpace | None = None
    mixed: bool = False

    def with_space(self, space: DistanceSpace, mixed: bool) -> 'About':
        """The same with another space."""
        return replace(self, space=space, mixed=mixed)


class AboutCollection:
    """The small collection.

    Args:
        connection: Where.
        collection: The name of the items' collection.
    """

    def __init__(self, connection: MilvusConnection, collection: str) -> None:
        self._connection, self.name = connection, f'{collection}_about'
        self._of = f"'{collection}' at {connection.uri}"

    def open(self) -> bool:
        """Makes the collection ready to be read if there is one, which says nothing of its rows."""
        if not self._connection.call('has_collection', self.name):
            return False
        if not self._connection.call('list_indexes', self.name):
            # Making it was killed.
            self._connection.call('create_index', self.name, self._index_params(), patience=60)
        self._connection.call('load_collection', self.name, patience=60)
        return True

    def create(self) -> None:
        """Makes the collection, without rows."""
        from pymilvus import DataType, MilvusClient

        schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field('id', DataType.INT64, is_primary=True)
        schema.add_field('text', DataType.VARCHAR, max_length=_LONGEST)
        # Milvus makes no collection without a vector.
        schema.add_field('vector', DataType.FLOAT_VECTOR, dim=2)
        params = self._index_params()
        self._connection.call(
            'create_collection', self.name, schema=schema, index_params=params, consistency_level='Strong', patience=60
        )

    @staticmethod
    def _index_params():
        from pymilvus import MilvusClient

        params = MilvusClient.prepare_index_params()
        params.add_index('vector', index_type='FLAT', metric_type='L2')
        return params

    def write(self, about: About) -> None:
        """Writes all but the next id; the manifest last, so that a gallery without one is known as unfinished."""
        space = about.space
        manifest = dict(
            format=_FORMAT,
            model=about.model,
            width=about.similarity.width,
            bias=about.similarity.bias.tolist(),
            fingerprint=about.similarity.fingerprint(),
            scale=space and space.products.scale,
            radius=space and space.radius,
            mixed=about.mixed,
        )
        self._write(_WEIGHT, _encoded(about.similarity.weight, '<f4'))
        self._write(_CENTRE, _encoded(space.products.centre, '<f8') if space else '')
        self._write(_MANIFEST, json.dumps(manifest))

    def read(self) -> About | None:
        """What stands there; None when making the gallery was not finished.

        Raises:
            GalleryError: It is none of this format.
        """
        rows = self._rows()
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
            about = About(similarity, str(manifest['model']))
            if manifest['scale'] is None:
                return about
            centre = _decoded(rows[_CENTRE], '<f8').reshape(similarity.width)
            radius = None if manifest['radius'] is None else float(manifest['radius'])
            space = DistanceSpace(InnerProductSpace(similarity, centre, float(manifest['scale'])), radius)
            return about.with_space(space, bool(manifest['mixed']))
        except (KeyError, TypeError, ValueError) as error:
            raise GalleryError(f'the collection {self.name} of gallery {self._of} is damaged: {error!r}') from error

    def next_id(self) -> int:
        """The least id that was never given.

        Raises:
            GalleryError: It is not there.
        """
        text = self._rows().get(_NEXT_ID, '')
        if not text.isdecimal():
            raise GalleryError(f'the collection {self.name} of gallery {self._of} is damaged: next id {text!r}')
        return int(text)

    def write_next_id(self, number: int) -> None:
        """Reserves the ids below a number."""
        self._write(_NEXT_ID, str(number))

    def _rows(self) -> dict[int, str]:
        found = self._connection.call('query', self.name, ids=list(range(4)), output_fields=['id', 'text'])
        return {int(row['id']): row['text'] for row in found}

    def _write(self, number: int, text: str) -> None:
        self._connection.call('upsert', self.name, [{'id': number, 'text': text, 'vector': [0.0, 0.0]}])


def _encoded(values: np.ndarray, dtype: str) -> str:
    return base64.b64encode(values.astype(dtype).tobytes()).decode()


def _decoded(text: str, dtype: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text, validate=True), dtype).astype(dtype[1:])
