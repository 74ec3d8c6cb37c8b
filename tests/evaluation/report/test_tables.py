"""The summary table."""

import pytest

from mmdf2.evaluation.report.tables import summary_table

FIGURES = {
    'test/bbox_AP': 0.6125,
    'test/bbox_AP50': 0.7,
    'test/bbox_AP75': 0.65,
    'test/segm_AP': float('nan'),
    'test/keypoints_AP_visible': 0.5,
    'test/keypoints_AP_all': 0.4,
    'test/retrieval_top1': 0.5,
    'test/retrieval_top20': 1,
    'test/retrieval_gt_top5': 0.25,
    'test/retrieval_chance_top1': 0.0123,
    'test/retrieval_missed': 3,
}


def test_every_row_stands_under_its_columns():
    lines = summary_table(FIGURES).splitlines()
    rows = {line[:31].strip(): line[31:].split() for line in lines if not line.startswith('---')}
    assert rows['boxes'] == ['0.613', '0.700', '0.650'] or rows['boxes'] == ['0.612', '0.700', '0.650']
    assert rows['masks'] == ['-', '-', '-']
    assert rows['landmarks, visible only'] == ['0.500', '-', '-']
    assert rows['landmarks, visible and occluded'] == ['0.400', '-', '-']
    assert rows['retrieval, detected boxes'] == ['0.500', '-', '-', '-', '1.000']
    assert rows['retrieval, ground-truth boxes'] == ['-', '0.250', '-', '-', '-']
    assert rows['retrieval, chance'] == ['0.012']
    headers = [line.split() for line in lines if 'AP75' in line or 'top-1' in line]
    assert headers == [['AP', 'AP50', 'AP75'], ['top-1', 'top-5', 'top-10', 'top-15', 'top-20']]
    assert len({len(line) for line in lines if line.startswith('---')}) == 1


def test_markdown_is_one_table_with_equal_cells():
    lines = summary_table(FIGURES, markdown=True).splitlines()
    assert {line.count('|') for line in lines} == {7}
    assert all(line.startswith('| ') and line.endswith('|') for line in lines)
    assert set(lines[1]) <= set('|-: ')
    assert any('**top-20**' in line for line in lines)


def test_rows_without_figures_are_left_out():
    table = summary_table({'bbox_AP': 0.5})
    assert 'boxes' in table
    assert 'masks' not in table
    assert 'retrieval' not in table


def test_unknown_metrics():
    with pytest.raises(ValueError, match=r"none of the metrics .*\['coco/bbox_mAP'\]"):
        summary_table({'coco/bbox_mAP': 0.5})
