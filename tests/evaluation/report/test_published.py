"""The published figures against cells that were copied by hand from the paper and from the repository's README."""

import pytest

from mmdf2.evaluation.records import COLUMNS, SUBSETS
from mmdf2.evaluation.report.published import PAPER, RELEASED, VARIANTS, published_precision, published_retrieval

# (Table, task, column) -> AP, AP50, AP75.
PRECISION = {
    (2, 'bbox', 'scale/small'): (0.604, 0.780, 0.717),
    (2, 'bbox', 'scale/large'): (0.660, 0.768, 0.744),
    (2, 'bbox', 'occlusion/heavy'): (0.372, 0.531, 0.433),
    (2, 'bbox', 'zoom_in/no'): (0.695, 0.848, 0.806),
    (2, 'bbox', 'viewpoint/frontal'): (0.681, 0.832, 0.791),
    (2, 'bbox', 'overall'): (0.667, 0.814, 0.773),
    (3, 'keypoints_visible', 'scale/moderate'): (0.687, 0.854, 0.779),
    (3, 'keypoints_visible', 'occlusion/slight'): (0.669, 0.851, 0.760),
    (3, 'keypoints_visible', 'zoom_in/large'): (0.375, 0.571, 0.390),
    (3, 'keypoints_visible', 'viewpoint/side_or_back'): (0.536, 0.748, 0.610),
    (3, 'keypoints_visible', 'overall'): (0.641, 0.820, 0.728),
    (3, 'keypoints_all', 'scale/small'): (0.497, 0.764, 0.551),
    (3, 'keypoints_all', 'occlusion/heavy'): (0.248, 0.479, 0.236),
    (3, 'keypoints_all', 'zoom_in/medium'): (0.489, 0.744, 0.537),
    (3, 'keypoints_all', 'viewpoint/no_wear'): (0.510, 0.716, 0.550),
    (3, 'keypoints_all', 'overall'): (0.563, 0.805, 0.641),
    (4, 'segm', 'scale/moderate'): (0.703, 0.865, 0.826),
    (4, 'segm', 'occlusion/medium'): (0.656, 0.824, 0.780),
    (4, 'segm', 'zoom_in/large'): (0.478, 0.591, 0.559),
    (4, 'segm', 'viewpoint/side_or_back'): (0.635, 0.811, 0.755),
    (4, 'segm', 'overall'): (0.674, 0.834, 0.793),
}
# Table 5, (task, column) -> top-20 of class, pose, mask, pose+class, mask+class.
TOP20 = {
    ('retrieval_gt', 'scale/small'): (0.520, 0.721, 0.624, 0.752, 0.656),
    ('retrieval_gt', 'occlusion/heavy'): (0.558, 0.728, 0.632, 0.728, 0.654),
    ('retrieval_gt', 'zoom_in/medium'): (0.547, 0.751, 0.655, 0.750, 0.702),
    ('retrieval_gt', 'viewpoint/side_or_back'): (0.533, 0.711, 0.637, 0.719, 0.658),
    ('retrieval_gt', 'overall'): (0.470, 0.654, 0.571, 0.665, 0.595),
    ('retrieval', 'scale/moderate'): (0.537, 0.702, 0.657, 0.730, 0.666),
    ('retrieval', 'occlusion/slight'): (0.527, 0.710, 0.639, 0.725, 0.676),
    ('retrieval', 'zoom_in/large'): (0.405, 0.560, 0.495, 0.582, 0.536),
    ('retrieval', 'viewpoint/no_wear'): (0.499, 0.690, 0.615, 0.699, 0.648),
    ('retrieval', 'overall'): (0.415, 0.588, 0.520, 0.617, 0.542),
}


@pytest.mark.parametrize(('table', 'task', 'column'), PRECISION)
def test_precision_of_the_paper(table, task, column):
    expected = dict(zip(('AP', 'AP50', 'AP75'), PRECISION[table, task, column], strict=True))
    assert published_precision(PAPER, task, column) == expected


@pytest.mark.parametrize(('task', 'column'), TOP20)
def test_top20_of_the_paper(task, column):
    found = published_retrieval(PAPER, task, column)
    assert {variant: shares[20] for variant, shares in found.items()} == dict(
        zip(VARIANTS, TOP20[task, column], strict=True)
    )
    assert all(set(shares) == ({1, 10, 20} if column == 'overall' else {20}) for shares in found.values())


def test_every_cell_of_the_paper_is_there_and_possible():
    for task in ('bbox', 'segm', 'keypoints_visible', 'keypoints_all'):
        for column in COLUMNS:
            figures = published_precision(PAPER, task, column)
            assert 0.2 < figures['AP'] < figures['AP50'] < 0.9 and figures['AP75'] < figures['AP50']
    for task in ('retrieval', 'retrieval_gt'):
        for column in SUBSETS:
            shares = published_retrieval(PAPER, task, column)
            assert tuple(shares) == VARIANTS and all(0.3 < shares[variant][20] < 0.8 for variant in VARIANTS)


def test_figures_of_the_released_subset():
    assert published_precision(RELEASED, 'bbox') == {'AP': 0.638, 'AP50': 0.789, 'AP75': 0.745}
    assert published_precision(RELEASED, 'keypoints_all') == {'AP': 0.529, 'AP50': 0.775, 'AP75': 0.596}
    pose_and_class = published_retrieval(RELEASED, 'retrieval')['pose+class']
    assert pose_and_class == {1: 0.192, 5: 0.345, 10: 0.435, 15: 0.488, 20: 0.524}
    assert published_retrieval(RELEASED, 'retrieval_gt') == {}
    assert (
        published_precision(RELEASED, 'bbox', 'scale/small')
        == published_retrieval(RELEASED, 'retrieval', 'scale/small')
        == {}
    )
