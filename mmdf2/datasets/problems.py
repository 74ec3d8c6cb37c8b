"""What can be wrong with a dataset's files, and what is done about each: the one list of both."""

from dataclasses import dataclass

# Kind of problem -> what happens to the data when it is noted rather than refused.
TREATMENTS: dict[str, str] = {
    'bad file name': 'image left out',
    'duplicate image id': 'image left out, the first of its id is kept',
    'missing annotation': 'image left out',
    'unreadable annotation': 'image left out',
    'missing image': 'image left out',
    'unreadable image': 'image left out',
    'bad source': 'image left out',
    'bad pair_id': 'image left out',
    'no items': 'image kept without items',
    'bad item name': 'item left out',
    'duplicate item id': 'item left out, the first of its number is kept',
    'repeated key': 'the last value of the key counts',
    'bad item': 'item left out',
    'unknown category': 'item left out',
    'bad box': 'item left out',
    'box outside image': 'box clipped to the image',
    'bad landmarks': 'item kept, all its landmarks unlabelled (v = 0)',
    'bad landmark': 'that landmark unlabelled (v = 0)',
    'landmark outside image': 'kept as it is',
    'bad polygon': 'polygon left out',
    'no mask': 'item kept without mask',
    'bad style': 'item kept without identity (style 0)',
    'bad attribute': 'item kept, the attribute unknown (0)',
}


@dataclass(frozen=True)
class Problem:
    """One thing found wrong.

    Attributes:
        kind: A key of ``TREATMENTS``.
        file: Name of the file.
        item: Key of the item in it, '' when the file as a whole is meant.
        detail: What was found and what should have been there.
    """

    kind: str
    file: str
    item: str
    detail: str

    def __post_init__(self):
        if self.kind not in TREATMENTS:
            raise ValueError(f'unknown kind of problem {self.kind!r}')

    def __str__(self):
        place = f'{self.file}: {self.item}' if self.item else self.file
        return f'{place}: {self.kind}: {self.detail}'


class AnnotationError(ValueError):
    """An annotation that cannot be used, or with a problem that the caller does not accept; see ``problem``."""

    def __init__(self, problem: Problem):
        super().__init__(str(problem))
        self.problem = problem

    def __reduce__(self):
        return AnnotationError, (self.problem,)


def refuse(problem: Problem) -> None:
    """The strict way to note a problem.

    Raises:
        AnnotationError: Always.
    """
    raise AnnotationError(problem)
