"""Figures published for Match R-CNN, the one place for them.

``PAPER`` is the paper (Ge et al., "DeepFashion2", CVPR 2019, arXiv 1901.07973, Tables 2 to 5), whose model was trained
on the full dataset; its retrieval counts queries with more than five matching gallery items. ``RELEASED`` is the README
of the dataset's repository, whose model was trained on the dataset as it was released; its retrieval counts all
queries, and it has no figures of subsets. Both are figures of the validation set.
"""

from mmdf2.evaluation.records import COLUMNS, OVERALL, SUBSETS

PAPER, RELEASED = 'paper', 'released subset'
# The streams that feed the matching network.
VARIANTS = ('class', 'pose', 'mask', 'pose+class', 'mask+class')

# Task -> figure -> values in the order of COLUMNS: the paper's Tables 2 (bbox), 3 (keypoints) and 4 (segm).
_PAPER_PRECISION = {
    'bbox': {
        'AP': (.604, .700, .660, .712, .654, .372, .695, .629, .466, .624, .681, .641, .667),
        'AP50': (.780, .851, .768, .844, .810, .531, .848, .755, .563, .713, .832, .796, .814),
        'AP75': (.717, .809, .744, .812, .768, .433, .806, .718, .525, .688, .791, .744, .773),
    },
    'segm': {
        'AP': (.634, .703, .666, .720, .656, .381, .701, .637, .478, .664, .689, .635, .674),
        'AP50': (.811, .865, .798, .863, .824, .543, .861, .791, .591, .757, .849, .811, .834),
        'AP75': (.752, .826, .773, .836, .780, .444, .823, .751, .559, .737, .810, .755, .793),
    },
    'keypoints_visible': {
        'AP': (.587, .687, .599, .669, .631, .398, .688, .559, .375, .527, .677, .536, .641),
        'AP50': (.780, .854, .782, .851, .813, .534, .855, .757, .571, .724, .846, .748, .820),
        'AP75': (.671, .779, .678, .760, .718, .440, .786, .633, .390, .571, .771, .610, .728),
    },
    'keypoints_all': {
        'AP': (.497, .607, .555, .643, .530, .248, .616, .489, .319, .510, .596, .456, .563),
        'AP50': (.764, .839, .774, .847, .799, .479, .848, .744, .549, .716, .832, .727, .805),
        'AP75': (.551, .703, .625, .739, .600, .236, .714, .537, .307, .550, .684, .506, .641),
    },
}  # fmt: skip

# Task -> figure -> value of the overall column.
_RELEASED_PRECISION = {
    'bbox': {'AP': 0.638, 'AP50': 0.789, 'AP75': 0.745},
    'segm': {'AP': 0.640, 'AP50': 0.797, 'AP75': 0.754},
    'keypoints_visible': {'AP': 0.605, 'AP50': 0.790, 'AP75': 0.684},
    'keypoints_all': {'AP': 0.529, 'AP50': 0.775, 'AP75': 0.596},
}

# Source -> task -> ks, and the top-k accuracies of each of VARIANTS in the overall column.
_OVERALL_ACCURACIES: dict[str, dict[str, tuple[tuple[int, ...], tuple[tuple[float, ...], ...]]]] = {
    PAPER: {
        'retrieval_gt': (
            (1, 10, 20),
            ((.102, .361, .470), (.264, .562, .654), (.193, .474, .571), (.268, .574, .665), (.212, .496, .595)),
        ),
        'retrieval': (
            (1, 10, 20),
            ((.091, .312, .415), (.243, .497, .588), (.186, .422, .520), (.244, .522, .617), (.208, .451, .542)),
        ),
    },
    RELEASED: {
        'retrieval': (
            (1, 5, 10, 15, 20),
            ((.079, .198, .273, .329, .366), (.182, .326, .416, .469, .510), (.135, .271, .350, .407, .447),
             (.192, .345, .435, .488, .524), (.152, .295, .379, .435, .477)),
        ),
    },
}  # fmt: skip

# Task -> variant -> top-20 accuracies in the order of SUBSETS: the paper's Table 5.
_PAPER_TOP20 = {
    'retrieval_gt': {
        'class': (.520, .630, .540, .572, .563, .558, .618, .547, .444, .546, .584, .533),
        'pose': (.721, .778, .735, .756, .737, .728, .775, .751, .621, .731, .763, .711),
        'mask': (.624, .714, .646, .675, .651, .632, .711, .655, .526, .644, .682, .637),
        'pose+class': (.752, .786, .733, .754, .750, .728, .789, .750, .620, .726, .771, .719),
        'mask+class': (.656, .728, .687, .714, .676, .654, .725, .702, .565, .684, .712, .658),
    },
    'retrieval': {
        'class': (.485, .537, .502, .527, .508, .383, .553, .496, .405, .499, .523, .487),
        'pose': (.637, .702, .691, .710, .670, .580, .710, .701, .560, .690, .700, .645),
        'mask': (.552, .657, .608, .639, .593, .555, .654, .613, .495, .615, .630, .565),
        'pose+class': (.691, .730, .705, .725, .706, .605, .746, .709, .582, .699, .723, .684),
        'mask+class': (.610, .666, .649, .676, .623, .549, .674, .655, .536, .648, .661, .604),
    },
}  # fmt: skip


def published_precision(source: str, task: str, column: str = OVERALL) -> dict[str, float]:
    """AP, AP50 and AP75 of a task; empty where none are published.

    Args:
        source: ``PAPER`` or ``RELEASED``.
        task: 'bbox', 'segm', 'keypoints_visible' or 'keypoints_all'.
        column: One of ``mmdf2.evaluation.records.COLUMNS``.
    """
    if source == PAPER:
        return {figure: values[COLUMNS.index(column)] for figure, values in _PAPER_PRECISION[task].items()}
    return _RELEASED_PRECISION[task] if column == OVERALL else {}


def published_retrieval(source: str, task: str, column: str = OVERALL) -> dict[str, dict[int, float]]:
    """Variant of the matching network -> k -> top-k accuracy; empty where none are published.

    Args:
        source: ``PAPER`` or ``RELEASED``.
        task: 'retrieval' (detected boxes) or 'retrieval_gt' (ground-truth boxes).
        column: One of ``mmdf2.evaluation.records.COLUMNS``; the paper has only top-20 accuracies of subsets.
    """
    if column == OVERALL:
        ks, rows = _OVERALL_ACCURACIES[source].get(task, ((), ()))
        return {variant: dict(zip(ks, row, strict=True)) for variant, row in zip(VARIANTS, rows, strict=bool(rows))}
    if source == PAPER:
        return {variant: {20: shares[SUBSETS.index(column)]} for variant, shares in _PAPER_TOP20[task].items()}
    return {}
