"""Faults of single images, which must not end a run over many, and how they are told from faults of the program.

Inference, training and testing go on after an image that fails. They need one rule for when not to: a program that
fails on every image would otherwise go on for hours. It is a module of its own because neither may import the other.
"""


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


def first_line(error: Exception) -> str:
    """The kind of an error and the first line of its message."""
    lines = str(error).strip().splitlines()
    return f'{type(error).__name__}: {lines[0]}' if lines else type(error).__name__
