"""Where the annotation and the images of an analysis come from: a store, a split's folder or the dataset's."""

from pathlib import Path

from mmdf2.datasets.manifest import is_store
from mmdf2.datasets.store import Store, open_or_prepare


def open_annotation(path, split: str = 'validation') -> tuple[Store, Path]:
    """Opens annotation, making the store of a folder that has none.

    Args:
        path: A store; a split's folder, with ``image`` and ``annos``; or the dataset's, with ``<split>`` in it.
        split: Used with the dataset's folder alone.

    Returns:
        The store, and the folder in which the images should be (it need not exist).

    Raises:
        FileNotFoundError: It is none of the three.
        StoreError: The store is damaged or stale.
    """
    path = Path(path)
    if is_store(path):
        return Store.open(path), path.parent / path.name.removesuffix('.store') / 'image'
    if (path / 'annos').is_dir():
        path = path.absolute()
        return open_or_prepare(path.parent, path.name), path / 'image'
    if (path / split).is_dir() or is_store(path / f'{split}.store'):
        return open_or_prepare(path, split), path / split / 'image'
    raise FileNotFoundError(
        f"{path} is neither a store (made by tools/prepare_deepfashion2.py), nor a split's folder with image/ and "
        f'annos/, nor a dataset with {split}/ in it'
    )
