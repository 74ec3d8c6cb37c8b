"""The records of ground truth and detections: what they refuse, selections of images, and the columns of subsets."""

import numpy as np
import pytest

from mmdf2.categories import MAX_LANDMARKS
from mmdf2.evaluation.coco import evaluate_task
from mmdf2.evaluation.records import COLUMNS, Detections, EvaluationError, GroundTruth, column_members

from .coco_reference import random_world


def test_column_members_partition_known_attributes():
    attributes = np.array([[1, 2, 3, 0], [3, 0, 1, 2]])
    members = dict(zip(COLUMNS, column_members(COLUMNS, 2, attributes), strict=True))
    assert members['overall'].tolist() == [True, True]
    assert members['scale/small'].tolist() == [True, False]
    assert members['occlusion/medium'].tolist() == [True, False]
    assert members['zoom_in/no'].tolist() == [False, True]
    assert members['viewpoint/frontal'].tolist() == [False, True]
    assert sum(flags[0] for flags in members.values()) == 4


class TestRefusals:
    @staticmethod
    def detections(**changes):
        columns = {
            'image_ids': np.array([4, 9]),
            'labels': np.array([0, 12]),
            'scores': np.array([0.5, 0.5]),
            'boxes': np.array([[1.0, 1, 5, 5], [0, 0, 3, 3]]),
        }
        return Detections(**{**columns, **changes})

    @pytest.mark.parametrize('bad', [np.nan, np.inf])
    def test_score_not_finite(self, bad):
        with pytest.raises(EvaluationError, match=r'row 1 .*image 9.* score that is not finite'):
            self.detections(scores=np.array([0.5, bad]))

    def test_box_not_finite_or_inverted(self):
        with pytest.raises(EvaluationError, match=r'image 4.* box that is not finite'):
            self.detections(boxes=np.array([[np.nan, 1, 5, 5], [0, 0, 3, 3]]))
        with pytest.raises(EvaluationError, match='no negative width'):
            self.detections(boxes=np.array([[1.0, 1, 5, 5], [0, 0, -3, 3]]))

    def test_landmarks_not_finite(self):
        with pytest.raises(EvaluationError, match='landmarks that is not finite'):
            self.detections(landmarks=np.full((2, MAX_LANDMARKS, 2), np.nan))

    def test_label_out_of_range(self):
        with pytest.raises(EvaluationError, match='label 13; labels are 0 to 12'):
            self.detections(labels=np.array([0, 13]))

    def test_columns_of_different_length(self):
        with pytest.raises(EvaluationError, match=r'boxes of the detections must have shape \(2, 4\), got \(1, 4\)'):
            self.detections(boxes=np.ones((1, 4)))

    def test_unknown_image(self):
        truth = GroundTruth(
            image_ids=np.array([4]),
            item_image_ids=np.array([4]),
            labels=np.array([0]),
            boxes=np.array([[0.0, 0, 2, 2]]),
        )
        with pytest.raises(EvaluationError, match='not in the ground truth, the first is 9'):
            evaluate_task(truth, self.detections(), 'bbox')
        with pytest.raises(EvaluationError, match='the first is 5'):
            truth.take_images([5])


def test_take_images_keeps_images_without_items():
    truth, _ = random_world(np.random.default_rng(15), max_items=1)
    bare = np.setdiff1d(truth.image_ids, truth.item_image_ids)[0]
    filled = truth.item_image_ids[-1]
    taken = truth.take_images([filled, bare])
    assert sorted(taken.image_ids) == sorted([filled, bare])
    assert set(taken.item_image_ids) == {filled}
    assert len(taken.masks) == len(taken.labels) == (truth.item_image_ids == filled).sum()
