"""Faults of single images, which must not end a run over many, and how they are told from faults of the program.

Inference, training and testing go on after an image that fails. They need one rule for when not to: a program that
fails on every image would otherwise go on for hours. It is a module of its own because neither may import the other.
"""

from collections.abc import Callable, Sequence
from typing import Any


class FaultsInARow:
    """Counts images that fail one after the other.

    Args:
        limit: Number of images in a row whose failure is taken for a fault of the program or of the machine.
    """

    def __init__(self, limit: int = 20) -> None:
        self.limit = limit
        self._count = 0

    def passed(self) -> None:
        """Notes an image that did not fail."""
        self._count = 0

    def failed(self, error: Exception, what: str) -> str:
        """Notes an image that failed; raises the error itself when it is the last of ``limit`` in a row.

        Args:
            error: What was raised.
            what: What failed, such as 'the model'.

        Returns:
            A sentence that says what failed and why, without a full stop.
        """
        self._count += 1
        if self._count >= self.limit:
            raise error
        return f'{what} failed on it: {first_line(error)}'


def predict_each(predict: Callable[[Sequence], list], images: Sequence, faults: FaultsInARow) -> list[Any]:
    """Lets a model predict images together, and one by one when it fails on them together.

    Args:
        predict: Returns what the model finds on each image of a part of ``images``.
        images: The images, in any form that ``predict`` takes.
        faults: Counts the images on which the model fails; the error of the last of its limit is raised.

    Returns:
        What the model finds on each image; for an image on which it fails, the sentence of ``FaultsInARow.failed``.
    """
    try:
        found = predict(images)
    except Exception as error:
        if len(images) == 1:
            return [faults.failed(error, 'the model')]
        return [one for row in range(len(images)) for one in predict_each(predict, images[row : row + 1], faults)]
    faults.passed()
    return found


def first_line(error: Exception) -> str:
    """The kind of an error and the first line of its message."""
    lines = str(error).strip().splitlines()
    return f'{type(error).__name__}: {lines[0]}' if lines else type(error).__name__
