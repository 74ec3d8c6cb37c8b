"""A trained model on a user's own images."""

import json
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.device import get_device
from mmengine.logging import print_log
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from tqdm import tqdm

from mmdf2.apis.inputs import ImageInput, list_inputs
from mmdf2.apis.predictions import prediction_dicts
from mmdf2.engine.checkpoints import CheckpointError, load_checkpoint_file
from mmdf2.images import write_image
from mmdf2.registry import MODELS
from mmdf2.visualization import draw_instance_data


@dataclass(frozen=True)
class ImageResult:
    """One image and what was found on it.

    Attributes:
        name: Of the image among those of the call.
        path: Its file, or None for an array.
        image: (H, W, 3) uint8 RGB, upright; None when it could not be read.
        data_sample: With ``pred_instances`` on the CPU, in the image's coordinates; None when it could not be read.
        error: Why it could not be read, else None.
    """

    name: str
    path: str | None
    image: np.ndarray | None = None
    data_sample: DetDataSample | None = None
    error: str | None = None


@dataclass
class InferenceReport:
    """All that a call of the inferencer found.

    Attributes:
        predictions: For each image that could be read a dict of ``name``, ``path``, ``width``, ``height`` and
            ``garments`` (``prediction_dicts``).
        failures: Name or path of each image that could not be read -> why.
        data_samples: Their data samples, when no ``out_dir`` was given.
        pictures: Their drawings (H, W, 3) uint8 RGB, when no ``out_dir`` was given.
    """

    predictions: list[dict] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    data_samples: list[DetDataSample] = field(default_factory=list)
    pictures: list[np.ndarray] = field(default_factory=list)


class ClothesInferencer:
    """Finds garments on images.

    Args:
        config: A config file or a ``Config``. Its test pipeline prepares the images, without the steps that load.
        checkpoint: The trained weights; read as data alone.
        device: Where to run; by default a GPU where there is one.

    Raises:
        CheckpointError: The checkpoint is not of this config's model, or no checkpoint.
        FileNotFoundError: No such config or checkpoint.
    """

    def __init__(self, config, checkpoint, device: str | None = None) -> None:
        config = config if isinstance(config, Config) else Config.fromfile(str(config))
        init_default_scope(config.get('default_scope', 'mmdet'))
        self.device = torch.device(device or get_device())
        self.model = _build_model(config, checkpoint).to(self.device).eval()
        self.pipeline = _build_pipeline(config)
        self.checkpoint = str(checkpoint)

    def __call__(
        self,
        images,
        out_dir=None,
        score_threshold: float = 0.3,
        batch_size: int = 1,
        with_embeddings: bool = False,
        progress: bool = True,
    ) -> InferenceReport:
        """Finds the garments on images, draws them and reports.

        Images that cannot be read are counted and named; the others go on.

        Args:
            images: A path, a folder (with the folders in it), an (H, W, 3) uint8 RGB array, or a list of those.
            out_dir: Write ``pictures/<name>.jpg`` and, a line an image as it is done, ``predictions.jsonl`` here.
            score_threshold: Garments with a lower score are neither drawn nor reported; 0 to 1.
            batch_size: Images at a time. Images of different shapes are padded to one, which changes figures a little.
            with_embeddings: Whether predictions carry the matching embedding.
            progress: Whether to show a bar.

        Returns:
            The report. With ``out_dir`` it holds no pixels, so that a folder of any size can be looked at.
        """
        inputs, others = list_inputs(images)
        if others:
            print_log(f'{len(others)} files are no images by their names and are left out, e.g. {others[0]}', 'current')
        report = InferenceReport()
        results = tqdm(self._predict(inputs, batch_size), total=len(inputs), unit='image', disable=not progress)
        with _Lines(out_dir) as lines:
            for result in results:
                if result.error is not None:
                    report.failures[result.path or result.name] = result.error
                    lines.write({'name': result.name, 'path': result.path, 'error': result.error})
                    continue
                height, width = result.image.shape[:2]
                instances = result.data_sample.pred_instances
                garments = prediction_dicts(instances, score_threshold, with_embeddings)
                entry = {'name': result.name, 'path': result.path, 'width': width, 'height': height}
                report.predictions.append({**entry, 'garments': garments})
                lines.write(report.predictions[-1])
                picture = draw_instance_data(result.image, instances, score_threshold)
                if out_dir is None:
                    report.data_samples.append(result.data_sample)
                    report.pictures.append(picture)
                else:
                    write_image(Path(out_dir, 'pictures', f'{result.name}.jpg'), picture)
        if report.failures:
            names = '\n'.join(f'  {name}: {reason}' for name, reason in report.failures.items())
            print_log(f'{len(report.failures)} of {len(inputs)} images not read:\n{names}', 'current', logging.WARNING)
        return report

    def predict(self, images, batch_size: int = 1) -> Iterator[ImageResult]:
        """Yields the result of each image, in order; those that cannot be read with their ``error``."""
        yield from self._predict(list_inputs(images)[0], batch_size)

    def _predict(self, inputs: list[ImageInput], batch_size: int) -> Iterator[ImageResult]:
        if batch_size < 1:
            raise ValueError(f'batch_size must be 1 or more, got {batch_size}')
        remaining = iter(inputs)
        while batch := list(islice(remaining, batch_size)):
            read = [_read(image) for image in batch]
            usable = [result for result in read if result.error is None]
            samples = iter(self._forward(usable))
            for result in read:
                sample = None if result.error else next(samples)
                yield ImageResult(result.name, result.path, result.image, sample, result.error)

    @torch.no_grad()
    def _forward(self, results: list[ImageResult]) -> list[DetDataSample]:
        if not results:
            return []
        # mmcv's transforms and the data preprocessor work on BGR.
        packed = [
            self.pipeline({'img': np.ascontiguousarray(result.image[..., ::-1]), 'img_id': number})
            for number, result in enumerate(results)
        ]
        for data in packed:
            # Packing leaves an empty one, which a model could take for an image without garments.
            del data['data_samples'].gt_instances
        samples = [sample.cpu() for sample in self.model.test_step(pseudo_collate(packed))]
        for sample, result in zip(samples, results, strict=True):
            sample.set_metainfo({'img_path': result.path})
        return samples


class _Lines:
    """``out_dir/predictions.jsonl``: whole lines as they come, under its own name once it is complete."""

    def __init__(self, out_dir) -> None:
        self.path = None if out_dir is None else Path(out_dir, 'predictions.jsonl')

    def __enter__(self) -> '_Lines':
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.file = open(f'{self.path}.partial', 'w', encoding='utf-8')
        return self

    def write(self, entry: dict) -> None:
        if self.path is not None:
            self.file.write(json.dumps(entry, allow_nan=False) + '\n')
            self.file.flush()

    def __exit__(self, kind, error, trace) -> None:
        if self.path is not None:
            self.file.close()
            if kind is None:
                os.replace(f'{self.path}.partial', self.path)


def _read(image: ImageInput) -> ImageResult:
    try:
        return ImageResult(image.name, image.path, image.read())
    except (OSError, ValueError) as error:
        return ImageResult(image.name, image.path, error=str(error))


def _build_model(config: Config, checkpoint) -> torch.nn.Module:
    model = revert_sync_batchnorm(MODELS.build(config.model))
    state = load_checkpoint_file(checkpoint, map_location='cpu')
    state = state.get('state_dict', state)
    # A distributed wrapper's checkpoint.
    state = {name.removeprefix('module.'): value for name, value in state.items()}
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise CheckpointError(f"{checkpoint} does not fit the config's model: {error}") from error
    return model


def _build_pipeline(config: Config) -> Compose:
    """The test pipeline from the image on: images are read here, and there is no annotation."""
    dataset = config.test_dataloader.dataset
    while 'dataset' in dataset:
        dataset = dataset.dataset
    kept = [step for step in dataset.pipeline if not step['type'].split('.')[-1].startswith('Load')]
    return Compose([{'type': 'mmdet.LoadImageFromNDArray'}, *kept])
