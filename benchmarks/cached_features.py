"""RoI features of ground-truth boxes from a frozen detector, in one file, to train its match head alone."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from mmdet.structures.bbox import bbox2roi
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from mmdf2.apis import ClothesInferencer
from mmdf2.datasets.prepare import open_or_prepare
from mmdf2.datasets.store import Store
from mmdf2.files import path_beside, sha256
from mmdf2.models.mirroring import mirrored_boxes, mirrored_images
from mmdf2.models.roi_heads.match_head import average_pool
from mmdf2.models.roi_heads.roi_features import RoIFeatures
from mmdf2.registry import DATASETS

SPLITS = ('train', 'validation')


@dataclass(frozen=True)
class Split:
    """A split.

    Attributes:
        store: The store of the split.
        features: Stream ('class', 'pose' or 'mask') -> (2, n, C, 7, 7) features of its n items, on the images and on
            the mirrored images.
    """

    store: Store
    features: dict[str, Tensor]

    def joined(self, streams: Sequence[str], rows: Tensor, mirrored: Tensor) -> Tensor:
        """The input of a match head's first convolution for some items: (m, C of all streams, 7, 7) float32.

        Args:
            streams: The head's sources.
            rows: (m,) the items.
            mirrored: (m,) bool, whether each is taken from its mirrored image.
        """
        return torch.cat([self.features[name][mirrored.long(), rows] for name in streams], dim=1).float()


def add_detector_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments that :func:`open_splits` reads."""
    parser.add_argument('config', type=Path, help='config of the trained detector')
    parser.add_argument('checkpoint', type=Path, help='checkpoint of the trained detector')
    parser.add_argument('--data-root', type=Path, help='folder of the dataset, if it is not that of the config')
    parser.add_argument(
        '--features',
        type=Path,
        default=Path('match_features.safetensors'),
        help='file of features, extracted if it does not exist; 43 KB per item',
    )


def open_splits(args: argparse.Namespace) -> tuple[dict[str, Split], Config]:
    """The splits with their features, and the detector's config; heads can be built from it afterwards.

    Args:
        args: Parsed arguments of :func:`add_detector_arguments`.
    """
    # Otherwise every head would log how each of its weights is initialised.
    MMLogger.get_instance('match_heads', log_level='WARNING')
    config = Config.fromfile(args.config)
    init_default_scope(config.get('default_scope', 'mmdet'))
    root = args.data_root or Path(config.test_dataloader.dataset.data_root)
    features = cached_features(args.features, config, args.checkpoint, root)
    return {name: Split(open_or_prepare(root, name), streams) for name, streams in features.items()}, config


def cached_features(path: Path, config: Config, checkpoint: Path, data_root: Path) -> dict[str, dict[str, Tensor]]:
    """Features of all items of both splits; they are extracted if the file does not exist.

    Args:
        path: The file of features.
        config: Config of the detector; its test pipeline prepares the images.
        checkpoint: Checkpoint of the detector.
        data_root: Folder of the dataset.

    Returns:
        Split -> stream -> (2, n, C, 7, 7) float16, on the images and on the mirrored ones; one row per item of the
        split's store.

    Raises:
        SystemExit: The file has the features of another detector or dataset.
    """
    origin = {'checkpoint': sha256(checkpoint), 'data_root': str(data_root.resolve())}
    if not path.exists():
        inferencer = ClothesInferencer(config, checkpoint, device='cpu')
        tensors = {}
        for split in SPLITS:
            streams = extract(inferencer.model, config, split, data_root)
            tensors.update({f'{split}.{stream}': features for stream, features in streams.items()})
        with path_beside(path) as beside:
            save_file(tensors, beside, metadata=origin)
    with safe_open(path, framework='pt') as file:
        for name, value in origin.items():
            found = (file.metadata() or {}).get(name)
            if found != value:
                raise SystemExit(f'{path} holds features of {name} {found}, not {value}; delete or rename it')
        found: dict[str, dict[str, Tensor]] = {split: {} for split in SPLITS}
        for name in file.keys():  # noqa: SIM118 (no dict)
            split, _, stream = name.partition('.')
            found[split][stream] = file.get_tensor(name)
        return found


@torch.no_grad()
def extract(model: nn.Module, config: Config, split: str, data_root: Path, batch_size: int = 8) -> dict[str, Tensor]:
    """Features of the ground-truth boxes of a split on the images and on the mirrored images.

    Args:
        model: The detector.
        config: Config of the detector; its test pipeline prepares the images.
        split: 'train' or 'validation'.
        data_root: Folder of the dataset.
        batch_size: Images per batch.

    Returns:
        Stream -> (2, n, C, 7, 7) float16, on the images and on the mirrored ones; one row per item of the store.
    """
    dataset = DATASETS.build({**config.test_dataloader.dataset, 'split': split, 'data_root': str(data_root)})
    rows, mirrored = [], []
    for start in tqdm(range(0, len(dataset), batch_size), desc=split, disable=None):
        batch = [dataset[index] for index in range(start, min(start + batch_size, len(dataset)))]
        data = model.data_preprocessor(pseudo_collate(batch), False)
        inputs, samples = data['inputs'], data['data_samples']
        boxes = [
            sample.gt_instances.bboxes * sample.gt_instances.bboxes.new_tensor(sample.scale_factor).repeat(2)
            for sample in samples
        ]
        widths = [sample.img_shape[1] for sample in samples]
        rows.append(_of_streams(model, inputs, boxes))
        boxes = [mirrored_boxes(own, width) for own, width in zip(boxes, widths, strict=True)]
        mirrored.append(_of_streams(model, mirrored_images(inputs, widths), boxes))
    return {
        stream: torch.stack([torch.cat([part[stream] for part in parts]) for parts in (rows, mirrored)])
        for stream in rows[0]
    }


def _of_streams(model: nn.Module, inputs: Tensor, boxes: list[Tensor]) -> dict[str, Tensor]:
    """(n, C, 7, 7) float16 features of each stream that the model has."""
    head = model.roi_head
    levels = tuple(level.float().contiguous() for level in model.extract_feat(inputs))
    features = RoIFeatures(head, levels, bbox2roi(boxes))
    streams = [name for name, there in (('pose', head.with_keypoint), ('mask', head.with_mask)) if there]
    return {name: average_pool(features.of_stream(name)).half() for name in ('class', *streams)}
