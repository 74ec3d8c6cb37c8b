"""Figures published for Match R-CNN, the one place for them.

``PAPER`` is of the paper (Ge et al., "DeepFashion2", CVPR 2019, arXiv 1901.07973, Tables 2 to 5), trained on the full
dataset; its retrieval counts queries with more than five matching gallery items. ``RELEASED`` is the authors' of the
dataset as it was released, in the README of its repository; its retrieval counts all queries. Both are of the
validation set. The paper's figures of single subsets are not here: only those of the overall column have been verified.
"""

PAPER, RELEASED = 'paper', 'released subset'

# Source -> task -> figure -> value, all of them overall.
PUBLISHED: dict[str, dict[str, dict[str, float]]] = {
    PAPER: {
        'bbox': {'AP': 0.667, 'AP50': 0.814, 'AP75': 0.773},
        'segm': {'AP': 0.674, 'AP50': 0.834, 'AP75': 0.793},
        'keypoints_visible': {'AP': 0.641, 'AP50': 0.820, 'AP75': 0.728},
        'keypoints_all': {'AP': 0.563, 'AP50': 0.805, 'AP75': 0.641},
    },
    RELEASED: {
        'bbox': {'AP': 0.638, 'AP50': 0.789, 'AP75': 0.745},
        'segm': {'AP': 0.640, 'AP50': 0.797, 'AP75': 0.754},
        'keypoints_visible': {'AP': 0.605, 'AP50': 0.790, 'AP75': 0.684},
        'keypoints_all': {'AP': 0.529, 'AP50': 0.775, 'AP75': 0.596},
    },
}

VARIANTS = ('class', 'pose', 'mask', 'pose+class', 'mask+class')

# Source -> task -> ks -> top-k accuracies of each of VARIANTS, the streams that feed the matching network.
_ACCURACIES = {
    PAPER: {
        'retrieval_gt': (
            (1, 10, 20),
            ((0.102, 0.361, 0.470), (0.264, 0.562, 0.654), (0.193, 0.474, 0.571), (0.268, 0.574, 0.665),
             (0.212, 0.496, 0.595)),
        ),
        'retrieval': (
            (1, 10, 20),
            ((0.091, 0.312, 0.415), (0.243, 0.497, 0.588), (0.186, 0.422, 0.520), (0.244, 0.522, 0.617),
             (0.208, 0.451, 0.542)),
        ),
    },
    RELEASED: {
        'retrieval': (
            (1, 5, 10, 15, 20),
            ((0.079, 0.198, 0.273, 0.329, 0.366), (0.182, 0.326, 0.416, 0.469, 0.510),
             (0.135, 0.271, 0.350, 0.407, 0.447), (0.192, 0.345, 0.435, 0.488, 0.524),
             (0.152, 0.295, 0.379, 0.435, 0.477)),
        ),
    },
}  # fmt: skip


def published_retrieval(source: str, task: str) -> dict[str, dict[int, float]]:
    """Variant of the matching network -> k -> top-k accuracy, empty where none is published.

    Args:
        source: ``PAPER`` or ``RELEASED``.
        task: 'retrieval' (detected boxes) or 'retrieval_gt' (ground-truth boxes).
    """
    ks, rows = _ACCURACIES[source].get(task, ((), [()] * len(VARIANTS)))
    return {variant: dict(zip(ks, row, strict=True)) for variant, row in zip(VARIANTS, rows, strict=True) if row}
