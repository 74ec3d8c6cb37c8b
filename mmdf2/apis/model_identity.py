"""Which model a gallery was built with, told by its weights."""

import hashlib
import re
from pathlib import Path

from mmdf2.apis.embedded_garments import model_similarity
from mmdf2.apis.inferencer import ClothesInferencer
from mmdf2.retrieval.gallery import Gallery, GalleryError, check_similarity
from mmdf2.retrieval.locations import open_gallery

_HASHED = re.compile(r' ([0-9a-f]{16})$')


def model_identity(inferencer: ClothesInferencer) -> str:
    """The checkpoint's file name and a hash of all weights, which no other training and no other file name changes."""
    digest = hashlib.sha256()
    for name, value in sorted(inferencer.model.state_dict().items()):
        array = value.cpu().contiguous().numpy()
        digest.update(f'{name} {array.dtype} {array.shape}\n'.encode())
        digest.update(array.tobytes())
    return f'{Path(inferencer.checkpoint).name} {digest.hexdigest()[:16]}'


def check_model(gallery: Gallery, inferencer: ClothesInferencer, location='the gallery') -> None:
    """GalleryError when a gallery was built with another model.

    A gallery whose ``model`` is no ``model_identity`` is told by its similarity alone.
    """
    check_similarity(location, gallery.model, gallery.similarity, model_similarity(inferencer))
    built, own = _HASHED.search(gallery.model), model_identity(inferencer)
    if built and built[1] != _HASHED.search(own)[1]:
        raise GalleryError(
            f"{location} was built with model '{gallery.model}', the one at hand is '{own}': embeddings of different "
            'models do not compare; build the gallery anew, or use its own model'
        )


def open_gallery_of(inferencer: ClothesInferencer, location) -> Gallery:
    """Opens a gallery that has to be of a model.

    Raises:
        GalleryError: No gallery, a damaged one, or one of another model.
    """
    gallery = open_gallery(location, model_similarity(inferencer))
    check_model(gallery, inferencer, location)
    return gallery
