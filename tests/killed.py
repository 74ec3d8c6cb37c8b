"""What tests kill at random moments: what writes, again and again, in a process of its own.

What changes a gallery item by item is in ``retrieval.changer``.
"""

from pathlib import Path

from mmdf2.apis import ClothesInferencer
from mmdf2.apis.gallery_building import add_images
from mmdf2.apis.search import model_identity, model_similarity
from mmdf2.datasets.exchange import export
from mmdf2.datasets.prepare import open_or_prepare, prepare
from mmdf2.evaluation.report.tables import write_report
from mmdf2.retrieval import FaissGallery, create_gallery, open_gallery
from mmdf2.retrieval.gallery import GalleryError
from mmdf2.retrieval.local.lists import ListSettings

ROUNDS = 10_000


def index(folder: Path) -> None:
    """Builds indexes of different settings and saves each of them."""
    gallery = FaissGallery.load(folder)
    for number in range(ROUNDS):
        with gallery.changing():
            gallery.build_index(ListSettings(lists=2 + number % 3, probes=100), least_items=1)


def prepare_again(root: Path) -> None:
    """Prepares the store of a split anew, again and again."""
    for _ in range(ROUNDS):
        prepare(root, 'train', force=True, workers=1)


def export_again(root: Path, folder: Path) -> None:
    """Writes the exchange files of a split."""
    store = open_or_prepare(root, 'train')
    for _ in range(ROUNDS):
        export(store, folder, 'train')


def report_again(reports: list[dict], path: Path) -> None:
    """Writes one report after another to the same place."""
    for number in range(ROUNDS):
        write_report(reports[number % len(reports)], path)


def build(config, checkpoint: Path, photos: list[str], folder: Path) -> None:
    """Builds a gallery of photos, or continues to."""
    inferencer = ClothesInferencer(config, checkpoint, device='cpu')
    try:
        gallery = create_gallery(folder, model_similarity(inferencer), model_identity(inferencer))
    except GalleryError:
        gallery = open_gallery(folder, model_similarity(inferencer))
    add_images(gallery, inferencer, photos, f'{folder}.partial', score_threshold=0.0, progress=False)
