"""Retrieval against a slow restatement of the official protocol, and on cases worked out by hand."""

import numpy as np
import pytest

from mmdf2.evaluation.files.retrieval import evaluate_retrieval_results
from mmdf2.evaluation.records import EvaluationError
from mmdf2.evaluation.retrieval import (
    MAX_HITS,
    TOP_K,
    RetrievalItems,
    chance_top1,
    judge,
    right_identities,
    select_queries,
    summarize,
)


def iou(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def official(results, query_gt, gallery_gt):
    """The protocol in plain loops.

    Returns:
        For each query item: its number of matches in the gallery, the place of the first right box or None, the average
        precision, and whether it is missed.
    """
    outcome = []
    for number, query in enumerate(query_gt):
        if query['style'] <= 0:
            continue
        siblings = [i for i, item in enumerate(query_gt) if item['query_image_id'] == query['query_image_id']]
        best = None
        for result in results:
            if result['query_image_id'] != query['query_image_id']:
                continue
            assigned = siblings[0]
            for sibling in siblings:
                overlap = iou(result['query_bbox'], query_gt[sibling]['bbox'])
                if overlap > iou(result['query_bbox'], query_gt[assigned]['bbox']):
                    assigned = sibling
            fits = assigned == number and result['query_cls'] == query['cls']
            if fits and (best is None or result['query_score'] > best['query_score']):
                best = result
        wanted = [g for g in gallery_gt if (g['pair_id'], g['style']) == (query['pair_id'], query['style'])]
        place, found, precisions = None, [], []
        if best is not None:
            for rank, (image, box) in enumerate(zip(best['gallery_image_id'], best['gallery_bbox'], strict=True)):
                right = any(g['gallery_image_id'] == image and iou(box, g['bbox']) >= 0.5 for g in wanted)
                if right and rank < 20 and place is None:
                    place = rank
                overlaps = [iou(box, g['bbox']) if g['gallery_image_id'] == image else 0.0 for g in wanted]
                item = int(np.argmax(overlaps)) if overlaps else None
                if right and rank < 20 and item not in found:
                    found.append(item)
                    precisions.append(len(found) / (rank + 1))
        average = sum(precisions) / min(len(wanted), 20) if wanted else 0
        outcome.append((len(wanted), place, average, best is None))
    return outcome


def random_files(rng, length=20):
    def box():
        corner = rng.integers(0, 3, 2) * 4
        return [*map(float, corner), *map(float, corner + rng.integers(0 if rng.random() < 0.1 else 1, 4, 2) * 4)]

    query_gt = [
        {'query_image_id': image, 'style': int(style), 'cls': int(rng.integers(1, 4)), 'pair_id': image % 4, 'bbox': b}
        for image in range(1, 9)
        for style, b in [(rng.integers(0, 3), box()) for _ in range(rng.integers(1, 4))]
    ]
    gallery_gt = [
        {'gallery_image_id': image, 'style': int(rng.integers(0, 3)), 'pair_id': image % 4, 'bbox': box()}
        for image in range(20, 40)
        for _ in range(rng.integers(1, 4))
    ]
    results = []
    for count in rng.integers(0, length + 1, 40):
        query = query_gt[rng.integers(len(query_gt))]
        related = [item for item in gallery_gt if item['pair_id'] == query['pair_id'] or rng.random() < 0.2]
        hits = [related[row] for row in rng.integers(len(related), size=count)]
        results.append(
            {
                'query_image_id': query['query_image_id'],
                'query_bbox': query['bbox'] if rng.random() < 0.5 else box(),
                'query_cls': query['cls'] if rng.random() < 0.7 else int(rng.integers(1, 4)),
                'query_score': float(rng.integers(0, 3)),
                'gallery_image_id': [hit['gallery_image_id'] + int(rng.random() < 0.2) for hit in hits],
                'gallery_bbox': [hit['bbox'] if rng.random() < 0.5 else box() for hit in hits],
            }
        )
    return results, query_gt, gallery_gt


@pytest.mark.parametrize('seed', range(30))
def test_random_worlds_against_the_protocol_in_loops(seed):
    files = random_files(np.random.default_rng(seed), length=20 if seed % 2 else 25)
    expected = official(*files)
    outcome = evaluate_retrieval_results(*files)
    assert [bool(missed) for missed in outcome.missed] == [missed for *_, missed in expected]
    assert outcome.matches.tolist() == [matches for matches, *_ in expected]
    places = [MAX_HITS if place is None else place for _, place, *_ in expected]
    assert outcome.first_right.tolist() == places
    assert outcome.average_precision == pytest.approx([average for _, _, average, _ in expected], abs=1e-12)
    figures = summarize(outcome)
    assert figures['map'] == pytest.approx(np.mean([average for _, _, average, _ in expected]))
    ranks = [0 if place is None else 1 / (place + 1) for _, place, *_ in expected]
    assert figures['mrr'] == pytest.approx(np.mean(ranks))
    for k in TOP_K:
        assert figures[f'top{k}'] == pytest.approx(np.mean([place < k for place in places]))
        rich = [place < k for place, (matches, *_) in zip(places, expected, strict=True) if matches > 5]
        assert figures.get(f'paper_top{k}') == (pytest.approx(np.mean(rich)) if rich else None)
    assert figures['paper_queries'] == sum(matches > 5 for matches, *_ in expected)
    assert figures['missed'] == sum(missed for *_, missed in expected)


def test_random_worlds_are_not_trivial():
    outcomes = [official(*random_files(np.random.default_rng(seed))) for seed in range(30)]
    places = [place for outcome in outcomes for _, place, *_ in outcome]
    assert 20 < sum(place == 0 for place in places) < sum(place is not None for place in places) < len(places) - 20
    assert any(missed for outcome in outcomes for *_, missed in outcome)
    assert sum(0 < average < 1 for outcome in outcomes for _, _, average, _ in outcome) > 20
    assert any(matches > 5 for outcome in outcomes for matches, *_ in outcome)


def items(*rows, image=1):
    boxes, identities, labels = zip(*rows, strict=True)
    return RetrievalItems(
        image_ids=np.full(len(rows), image),
        boxes=np.array(boxes, float),
        identities=np.array(identities),
        labels=np.array(labels),
    )


def select(truth, *rows, image=1):
    boxes, labels, scores = zip(*rows, strict=True)
    return select_queries(
        truth, np.full(len(rows), image), np.array(boxes, float), np.array(labels), np.array(scores, float)
    )[1].tolist()


LEFT, RIGHT, FAR = (0, 0, 10, 10), (10, 0, 20, 10), (50, 50, 60, 60)


class TestSelection:
    def test_a_tie_goes_to_the_first_item(self):
        assert select(items((LEFT, 7, 0), (RIGHT, 8, 0)), ((5, 0, 15, 10), 0, 0.9)) == [0, -1]

    def test_without_any_overlap_the_first_item_is_taken(self):
        assert select(items((LEFT, 7, 0), (RIGHT, 8, 0)), (FAR, 0, 0.9)) == [0, -1]

    def test_an_item_without_identity_takes_detections_but_is_no_query(self):
        assert select(items((LEFT, -1, 0), (RIGHT, 8, 0)), (FAR, 0, 0.9), (LEFT, 0, 0.8)) == [-1]

    def test_a_wrong_category_never_represents(self):
        assert select(items((LEFT, 7, 0)), (LEFT, 1, 0.9)) == [-1]
        assert select(items((LEFT, 7, 0)), (LEFT, 1, 0.9), (FAR, 0, 0.1)) == [1]

    def test_the_best_score_wins_over_the_best_overlap_and_the_first_of_equal_scores(self):
        assert select(items((LEFT, 7, 0)), (LEFT, 0, 0.1), (FAR, 0, 0.9), (LEFT, 0, 0.9)) == [1]

    def test_detections_on_other_images_do_not_count(self):
        assert select(items((LEFT, 7, 0)), (LEFT, 0, 0.9), image=2) == [-1]

    def test_refuses_nan(self):
        with pytest.raises(EvaluationError, match=r'detection 0 \(image 1\) has score nan'):
            select(items((LEFT, 7, 0)), (LEFT, 0, np.nan))


def test_right_identities_ignore_category_and_count_every_item_overlapped():
    gallery = items((LEFT, 7, 0), (LEFT, 8, 5), (RIGHT, 9, 0), (LEFT, -1, 0))
    box, identity = right_identities(gallery, np.array([1, 1, 2]), np.array([LEFT, (5, 0, 15, 10), LEFT], float))
    assert list(zip(box.tolist(), identity.tolist(), strict=True)) == [(0, 7), (0, 8)]
    exactly_half = np.array([[0, 0, 10, 20]], float)
    assert right_identities(gallery, np.array([1]), exactly_half)[1].tolist() == [7, 8]


def test_chance_is_the_mean_over_every_order_of_the_gallery():
    queries = items((LEFT, 7, 0), (RIGHT, 8, 0), (RIGHT, 99, 0), (RIGHT, -1, 0))
    gallery = RetrievalItems(
        image_ids=np.array([20, 21, 21, 22]),
        boxes=np.array([LEFT, LEFT, LEFT, FAR], float),
        identities=np.array([7, 7, 8, -1]),
        labels=np.zeros(4, int),
    )
    # Boxes 0, 1 and 2 are right for 7 (box 2 lies on box 1), boxes 1 and 2 are right for 8, no box is right for 99.
    assert chance_top1(queries, gallery) == pytest.approx((3 / 4 + 2 / 4 + 0) / 3)
    assert np.isnan(chance_top1(items((LEFT, -1, 0)), gallery))


class TestAveragePrecision:
    @staticmethod
    def of(gallery, *hit_boxes):
        """Average precision of a query of identity 7 that retrieved these boxes, all of them on image 1."""
        count = len(hit_boxes)
        hits = np.full(count, 1), np.array(hit_boxes, float).reshape(-1, 4), np.zeros(count, int)
        outcome = judge(items((LEFT, 7, 0)), gallery, np.array([0]), np.array([False]), *hits)
        return outcome.average_precision.item()

    def test_a_box_finds_the_item_that_it_overlaps_most(self):
        tall = (0, 0, 10, 14)
        gallery = items((LEFT, 7, 0), (tall, 7, 0))
        # The tall box overlaps the first item by 10/13 and the second by 13/14, so the first is left for the next box.
        assert self.of(gallery, (0, 0, 10, 13), LEFT) == 1
        assert self.of(gallery, (0, 0, 10, 13), tall) == 0.5
        assert self.of(gallery, FAR, (0, 0, 10, 13), LEFT) == pytest.approx((1 / 2 + 2 / 3) / 2)

    def test_an_item_is_found_once(self):
        assert self.of(items((LEFT, 7, 0), (FAR, 7, 0)), LEFT, LEFT, FAR) == pytest.approx((1 + 2 / 3) / 2)

    def test_more_items_than_places_can_all_be_found(self):
        boxes = [(20 * place, 0, 20 * place + 10, 10) for place in range(25)]
        gallery = items(*((box, 7, 0) for box in boxes))
        assert self.of(gallery, *boxes) == 1
        assert self.of(gallery, *boxes[:10]) == 0.5

    def test_places_after_the_twentieth_do_not_count(self):
        wrong = [FAR] * 20
        assert self.of(items((LEFT, 7, 0)), *wrong[:19], LEFT) == 1 / 20
        assert self.of(items((LEFT, 7, 0)), *wrong, LEFT) == 0

    def test_a_query_without_partner_has_none(self):
        assert self.of(items((LEFT, 8, 0)), LEFT) == 0
