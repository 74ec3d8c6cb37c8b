"""The thirteen columns of the paper's tables: all items, and three subsets by each of four attributes.

A subset keeps its own items; the others are ignored, so that a detection matched to one counts neither way, and
unmatched detections count in every column. Source: the paper's Tables 2 to 4, the order of their columns.
"""

import numpy as np

OVERALL = 'overall'
# Attribute -> names of its values 1, 2, 3, in the order of ``GroundTruth.attributes``.
ATTRIBUTE_VALUES = {
    'scale': ('small', 'moderate', 'large'),
    'occlusion': ('slight', 'medium', 'heavy'),
    'zoom_in': ('no', 'medium', 'large'),
    'viewpoint': ('no_wear', 'frontal', 'side_or_back'),
}
SUBSETS = tuple(f'{attribute}/{value}' for attribute, values in ATTRIBUTE_VALUES.items() for value in values)
COLUMNS = (*SUBSETS, OVERALL)


def column_members(columns, count: int, attributes=None) -> np.ndarray:
    """Which items count in each column.

    Args:
        columns: c names of ``COLUMNS``.
        count: m, the number of items.
        attributes: (m, 4) values 1 to 3, 0 where unknown (in no subset); None when only 'overall' is asked for.

    Returns:
        (c, m) bool.

    Raises:
        ValueError: An unknown column, or a subset without attributes.
    """
    members = np.ones((len(columns), count), dtype=bool)
    for row, column in enumerate(columns):
        if column == OVERALL:
            continue
        if column not in SUBSETS:
            raise ValueError(f'column must be one of {", ".join(COLUMNS)}, got {column!r}')
        if attributes is None:
            raise ValueError(f'column {column!r} needs the attributes of the ground truth, which it does not carry')
        place = SUBSETS.index(column)
        members[row] = attributes[:, place // 3] == place % 3 + 1
    return members
