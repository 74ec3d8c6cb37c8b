"""A trained model on a user's own images: data samples, drawings and plain JSON."""

import contextlib
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
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
from mmengine.structures import InstanceData
from tqdm import tqdm

from mmdf2.apis.inputs import ImageInput, check_batch_size, check_score_threshold, list_inputs
from mmdf2.categories import CATEGORIES, CATEGORY_NAMES
from mmdf2.command_line import foreign_lines_dropped
from mmdf2.engine import config_faults_explained, load_checkpoint_file, load_weights, read_config
from mmdf2.evaluation.files.masks import encode_masks
from mmdf2.faults import FaultsInARow, predict_each
from mmdf2.files import open_growing
from mmdf2.images import write_image
from mmdf2.registry import MODELS
from mmdf2.stack import require_gpu_operators, unused_gpu
from mmdf2.visualization import draw_instance_data


@dataclass(frozen=True)
class ImageResult:
    """One image and what was found on it.

    Attributes:
        name: Name of the image, which no other image of the same call has.
        path: Path of the image's file, or None for an array.
        image: (H, W, 3) uint8 RGB, upright; None when the image failed.
        data_sample: The sample with ``pred_instances`` on the CPU, in the image's coordinates; None when the image
            failed.
        error: Why the image could not be read, or what failed on it in the pipeline or in the model; None when nothing
            did.
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
        predictions: For each image that did not fail a dict of ``name``, ``path``, ``width``, ``height`` and
            ``garments`` (see ``prediction_dicts``).
        failures: Path (or name, for an array) of each image that failed -> why: it could not be read, something failed
            on it in the pipeline, in the model or in drawing, or its picture could not be written.
        data_samples: The data samples of the images that did not fail; empty when ``out_dir`` was given.
        pictures: The drawings of the images that did not fail, (H, W, 3) uint8 RGB; empty when ``out_dir`` was given.
    """

    predictions: list[dict] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    data_samples: list[DetDataSample] = field(default_factory=list)
    pictures: list[np.ndarray] = field(default_factory=list)


class ClothesInferencer:
    """Finds garments on images.

    Args:
        config: A config file or a ``Config``. Its test pipeline, without the steps that load, prepares the images.
        checkpoint: The file with the trained weights. It is read as data; nothing in it is executed.
        device: A torch device such as 'cpu' or 'cuda:0'; by default a GPU where there is one.

    Raises:
        CheckpointError: The file is not a checkpoint, or one of another model.
        FileNotFoundError: The config or the checkpoint does not exist.
        StackError: The device is a GPU, and the operators of torch or mmcv do not run on it.
        UserError: The config cannot be read, or describes no model with a test pipeline.
        ValueError: The device cannot be used.
    """

    def __init__(self, config, checkpoint, device: str | None = None) -> None:
        config = config if isinstance(config, Config) else read_config(config)
        init_default_scope(config.get('default_scope', 'mmdet'))
        self.device = _usable_device(device or get_device())
        require_gpu_operators(self.device)
        if device is None and (message := unused_gpu()):
            print_log(message, 'current', logging.WARNING)
        # MMDetection's parts are imported when the first of them is looked up, and print a line.
        with foreign_lines_dropped(), config_faults_explained(config):
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

        Whatever an image does, in reading, in the pipeline, in the model, in drawing or in writing: it is counted and
        named, and the others go on. Only when 20 images in a row fail in something else than reading, the fault is
        taken for one of the program or of the machine and is raised; what was written before is kept.

        Args:
            images: A path, a folder (with the folders in it), an (H, W, 3) uint8 RGB array, or a list of those.
            out_dir: Folder for ``pictures/<name>.jpg`` and ``predictions.jsonl``, which has one line per image. Until
                all images are done it grows as ``predictions.jsonl.partial``.
            score_threshold: Garments with a lower score are neither drawn nor reported; 0 to 1.
            batch_size: Number of images per forward pass. Images of different shapes are padded to a common one, which
                changes the predictions slightly.
            with_embeddings: Whether the predictions carry the embeddings of the match head.
            progress: Whether to show a progress bar.

        Returns:
            The report. With ``out_dir`` it holds no pixels, so that a folder of any size fits into memory.
        """
        check_score_threshold(score_threshold)
        check_batch_size(batch_size)
        inputs, others = list_inputs(images)
        if others:
            print_log(f'{len(others)} files without the suffix of an image are skipped, such as {others[0]}', 'current')
        report = InferenceReport()
        results = tqdm(self._predict(inputs, batch_size), total=len(inputs), unit='image', disable=not progress)
        faults = FaultsInARow()
        with contextlib.nullcontext() if out_dir is None else open_growing(Path(out_dir, 'predictions.jsonl')) as lines:
            for result in results:
                line, error = '', result.error
                if error is None:
                    try:
                        line = self._keep(result, report, out_dir, score_threshold, with_embeddings)
                        faults.passed()
                    except Exception as fault:
                        error = faults.failed(fault, 'drawing or writing')
                if error is not None:
                    report.failures[result.path or result.name] = error
                    line = json.dumps({'name': result.name, 'path': result.path, 'error': error})
                if lines is not None:
                    lines.write(line + '\n')
                    lines.flush()
        if report.failures:
            names = '\n'.join(f'  {name}: {reason}' for name, reason in report.failures.items())
            print_log(f'{len(report.failures)} of {len(inputs)} images failed:\n{names}', 'current', logging.WARNING)
        return report

    def _keep(self, result: ImageResult, report: InferenceReport, out_dir, threshold: float, embeddings: bool) -> str:
        """Draws a result and adds it to the report; returns its line of predictions.jsonl."""
        height, width = result.image.shape[:2]
        instances = result.data_sample.pred_instances
        entry = {'name': result.name, 'path': result.path, 'width': width, 'height': height}
        entry['garments'] = prediction_dicts(instances, threshold, embeddings)
        line = json.dumps(entry, allow_nan=False)
        picture = draw_instance_data(result.image, instances, threshold)
        if out_dir is None:
            report.data_samples.append(result.data_sample)
            report.pictures.append(picture)
        else:
            write_image(Path(out_dir, 'pictures', f'{result.name}.jpg'), picture)
        report.predictions.append(entry)
        return line

    def predict(self, images, batch_size: int = 1) -> Iterator[ImageResult]:
        """Yields the result of each image, in order; an image that fails has an ``error``.

        An image fails when it cannot be read, and when the pipeline or the model fails on it. An image on which the
        model fails together with others is tried alone. The error of the 20th image in a row on which the pipeline or
        the model fails is raised.
        """
        check_batch_size(batch_size)
        return self._predict(list_inputs(images)[0], batch_size)

    def _predict(self, inputs: list[ImageInput], batch_size: int) -> Iterator[ImageResult]:
        remaining, faults = iter(inputs), FaultsInARow()
        while batch := list(islice(remaining, batch_size)):
            read = [self._prepared(image, faults) for image in batch]
            found = iter(self._forward([data for _, data in read if data is not None], faults))
            for result, data in read:
                sample = None if data is None else next(found)
                if isinstance(sample, str):
                    yield ImageResult(result.name, result.path, error=sample)
                    continue
                if sample is not None:
                    sample.set_metainfo({'img_path': result.path})
                yield replace(result, data_sample=sample)

    def _prepared(self, image: ImageInput, faults: FaultsInARow) -> tuple[ImageResult, dict | None]:
        """Reads an image and prepares it for the model; None instead of the model's input when that fails."""
        try:
            result = ImageResult(image.name, image.path, image.read())
        except (OSError, ValueError) as error:
            return ImageResult(image.name, image.path, error=str(error)), None
        try:
            # mmcv's transforms and the data preprocessor work on BGR.
            data = self.pipeline({'img': np.ascontiguousarray(result.image[..., ::-1]), 'img_id': 0})
            # Packing leaves empty ground truth, which a model could take for an image without garments.
            del data['data_samples'].gt_instances
        except Exception as error:
            return ImageResult(image.name, image.path, error=faults.failed(error, 'the pipeline')), None
        return result, data

    @torch.no_grad()
    def _forward(self, packed: list[dict], faults: FaultsInARow) -> list[DetDataSample | str]:
        """What the model finds on images; what failed, in words, in the place of an image on which it fails."""
        if not packed:
            return []
        return predict_each(
            lambda part: [sample.cpu() for sample in self.model.test_step(pseudo_collate(part))], packed, faults
        )


def _usable_device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:  # a name that torch does not know; no such device, or no driver
        reason = str(error).splitlines()[0].rstrip('.')
        raise ValueError(
            f"device '{name}' cannot be used: {reason}; use 'cpu', or 'cuda' where there is a GPU"
        ) from None
    return device


def _build_model(config: Config, checkpoint) -> torch.nn.Module:
    model = revert_sync_batchnorm(MODELS.build(config.model))
    load_weights(model, load_checkpoint_file(checkpoint, map_location='cpu'), checkpoint, CATEGORY_NAMES)
    return model


def _build_pipeline(config: Config) -> Compose:
    """The config's test pipeline without its loading steps: images come as arrays, and there is no annotation."""
    dataset = config.test_dataloader.dataset
    while 'dataset' in dataset:
        dataset = dataset.dataset
    kept = [step for step in dataset.pipeline if not step['type'].split('.')[-1].startswith('Load')]
    return Compose([{'type': 'mmdet.LoadImageFromNDArray'}, *kept])


def prediction_dicts(
    instances: InstanceData, score_threshold: float = 0.0, with_embeddings: bool = False
) -> list[dict]:
    """Turns the predicted garments of an image into values that JSON can hold, the best detected first.

    Args:
        instances: ``pred_instances`` of a data sample on the CPU: ``bboxes``, ``labels``, ``scores``, and ``masks``,
            ``keypoints`` with ``keypoint_scores`` and ``embeddings`` where the model has those streams.
        score_threshold: Garments with a lower score are left out; 0 to 1.
        with_embeddings: Whether to include the embedding of the match head.

    Returns:
        One dict per garment with ``category_id`` (1 to 13), ``category_name``, ``score`` (0 to 1) and ``bbox``
        ([x1, y1, x2, y2] in pixels). Where the model predicts them, there are also ``segmentation`` (COCO's compressed
        run-length mask), ``landmarks`` (one dict per landmark with ``number`` from 1, ``x``, ``y`` and ``score``) and
        ``embedding``.
    """
    scores = instances.scores.float().numpy()
    rows = [row for row in np.argsort(-scores, kind='stable') if scores[row] >= score_threshold]
    return [_prediction_dict(instances, int(row), with_embeddings) for row in rows]


def _prediction_dict(instances: InstanceData, row: int, with_embeddings: bool) -> dict:
    category = CATEGORIES[int(instances.labels[row])]
    result = {
        'category_id': category.id,
        'category_name': category.name,
        'score': _rounded(instances.scores[row], 4),
        'bbox': _rounded(instances.bboxes[row], 2),
    }
    if 'masks' in instances:
        (mask,) = encode_masks(instances.masks[row : row + 1].numpy())
        result['segmentation'] = {**mask, 'counts': mask['counts'].decode('ascii')}
    if 'keypoints' in instances:
        points = _rounded(instances.keypoints[row, : category.num_landmarks], 2)
        certainty = _rounded(instances.keypoint_scores[row, : category.num_landmarks], 4)
        result['landmarks'] = [
            {'number': number, 'x': x, 'y': y, 'score': score}
            for number, ((x, y), score) in enumerate(zip(points, certainty, strict=True), start=1)
        ]
    if with_embeddings and 'embeddings' in instances:
        result['embedding'] = _rounded(instances.embeddings[row], 6)
    return result


def _rounded(values, digits: int):
    return np.round(values.double().numpy(), digits).tolist()
