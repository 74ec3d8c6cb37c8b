"""The hook that draws results while MMEngine's runner tests.

It is a module of its own since mmdet's hooks import all of mmdet's datasets, which inference does without.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

from mmdet.engine.hooks import DetVisualizationHook
from mmdet.structures import DetDataSample
from mmengine.fileio import get
from mmengine.logging import print_log

from mmdf2.images import decode_image
from mmdf2.registry import HOOKS


@HOOKS.register_module()
class ClothesVisualizationHook(DetVisualizationHook):
    """MMDetection's hook, with images that are read as ``mmdf2.images`` does: upright and with their right colours.

    An image that cannot be read is named in the log and not drawn. The arguments are those of MMDetection's
    ``DetVisualizationHook``.
    """

    def after_val_iter(self, runner, batch_idx: int, data_batch: dict, outputs: Sequence[DetDataSample]) -> None:
        """Draws the first image of every ``interval``-th batch of validation."""
        step = runner.iter + batch_idx
        if self.draw and step % self.interval == 0:
            self._draw(outputs[0], Path(outputs[0].img_path).name if self.show else 'val_img', None, step)

    def after_test_iter(self, runner, batch_idx: int, data_batch: dict, outputs: Sequence[DetDataSample]) -> None:
        """Draws the images of a batch of testing."""
        for sample in outputs if self.draw else ():
            self._test_index += 1
            name = Path(sample.img_path).name
            folder = Path(runner.work_dir, runner.timestamp, self.test_out_dir) if self.test_out_dir else None
            out_file = None if folder is None else str(folder / name)
            self._draw(sample, name if self.show else 'test_img', out_file, self._test_index)

    def _draw(self, sample: DetDataSample, name: str, out_file: str | None, step: int) -> None:
        if 'unreadable' in sample:  # the log has its name
            return
        try:
            image = decode_image(get(sample.img_path, backend_args=self.backend_args), sample.img_path)
        except OSError as error:
            print_log(f'no drawing: {error}', 'current', logging.WARNING)
            return
        self._visualizer.add_datasample(
            name,
            image,
            data_sample=sample,
            show=self.show,
            wait_time=self.wait_time,
            pred_score_thr=self.score_thr,
            out_file=out_file,
            step=step,
        )
