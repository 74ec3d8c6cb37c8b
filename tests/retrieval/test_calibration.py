"""What scores mean: the fitted line and figures against formulas and brute force, and where a gallery keeps it."""

import json

import numpy as np
import pytest

from mmdf2.retrieval import FaissGallery
from mmdf2.retrieval.calibration import Calibration, calibration_error, fit_calibration, logistic
from mmdf2.retrieval.gallery import GalleryError
from mmdf2.retrieval.local.folder import MANIFEST
from mmdf2.retrieval.transfer import transfer

from .made_gallery import make_embeddings, make_items, make_similarity

GOOD = Calibration(slope=0.5, intercept=-1.0, false_scores=(0.0, 1.0, 3.0), queries=9)


def test_the_line_is_that_of_the_scores():
    """Labels that are drawn from a known line give it back."""
    rng = np.random.default_rng(0)
    scores = rng.normal(40, 15, 200_000)
    same = rng.random(len(scores)) < logistic(0.21 * scores - 9)
    found = fit_calibration(scores, same, [1.0, 2.0])
    assert found.slope == pytest.approx(0.21, rel=0.02) and found.intercept == pytest.approx(-9, rel=0.02)
    assert calibration_error(found.probability(scores), same) < 0.005
    shifted = fit_calibration(1000 * scores - 5e6, same, [1.0, 2.0])
    np.testing.assert_allclose(shifted.probability(1000 * scores - 5e6), found.probability(scores), atol=1e-6)


def test_the_line_is_the_most_likely_one():
    """No other line near it has a smaller cross-entropy with Platt's targets."""
    rng = np.random.default_rng(1)
    scores = rng.normal(size=300)
    same = rng.random(300) < logistic(2 * scores - 1)
    found = fit_calibration(scores, same, [0.0])
    positive, negative = same.sum(), (~same).sum()
    targets = np.where(same, (positive + 1) / (positive + 2), 1 / (negative + 2))

    def cross_entropy(slope, intercept):
        probability = 1 / (1 + np.exp(-(slope * scores + intercept)))
        return -(targets * np.log(probability) + (1 - targets) * np.log(1 - probability)).sum()

    best = cross_entropy(found.slope, found.intercept)
    for slope, intercept in ((0.01, 0), (-0.01, 0), (0, 0.01), (0, -0.01)):
        assert cross_entropy(found.slope + slope, found.intercept + intercept) > best


@pytest.mark.parametrize('scale', [1e-6, 1.0, 1e6])
def test_scores_that_separate_keep_the_line_finite(scale):
    scores = scale * np.array([1.0, 2, 3, 10, 11, 12])
    found = fit_calibration(scores, scores > 5 * scale, [scale])
    assert found.probability(scores).argmax() == 5 and 0 < found.probability(scores).min() < 0.5
    assert np.isfinite(found.probability([-1e300, 1e300])).all()


@pytest.mark.parametrize(
    ('scores', 'same', 'best', 'message'),
    [
        ([1.0, 2.0], [True, True], [1.0], 'got 2 and 0 of 1 queries'),
        ([1.0, 2.0], [False, False], [1.0], 'got 0 and 2'),
        ([1.0, 2.0], [True, False], [], 'of 0 queries'),
        ([1.0, 2.0, 1.5], [True, False, False], [1.0], 'the model has not learned to match'),
    ],
)
def test_what_cannot_be_calibrated_is_named(scores, same, best, message):
    with pytest.raises(ValueError, match=message):
        fit_calibration(scores, same, best)


def test_the_threshold_accepts_the_wanted_share():
    best = np.random.default_rng(2).normal(size=5000)
    found = fit_calibration([0.0, 1.0], [False, True], best)
    for share in (0.0, 0.01, 0.05, 0.5, 1.0):
        assert (best >= found.threshold(share)).mean() == pytest.approx(share, abs=0.003)
    for share in (-0.1, 1.1, float('nan')):
        with pytest.raises(ValueError, match='must be from 0 to 1'):
            found.threshold(share)


def test_calibration_error_of_sure_and_of_wrong_answers():
    same = np.arange(300) < 100
    assert calibration_error(np.where(same, 1.0, 0.0), same) == 0
    assert calibration_error(np.where(same, 0.0, 1.0), same) == 1
    assert calibration_error(np.full(300, 0.5), same, bins=1) == pytest.approx(0.5 - 1 / 3)


@pytest.mark.parametrize(
    'change',
    [
        {'slope': 0.0},
        {'slope': float('nan')},
        {'slope': '1'},
        {'intercept': float('inf')},
        {'false_scores': [1.0, 0.5]},
        {'false_scores': [1.0]},
        {'false_scores': 'abc'},
        {'queries': 0},
        {'queries': 2.5},
        {'surprise': 1},
    ],
)
def test_numbers_that_are_no_calibration_are_refused(change, tmp_path):
    with pytest.raises(ValueError, match='calibration'):
        Calibration.from_json({**GOOD.to_json(), **change})
    gallery = FaissGallery(make_similarity(np.random.default_rng(0)))
    gallery.save(tmp_path / 'g')
    path = tmp_path / 'g' / MANIFEST
    path.write_text(json.dumps({**json.loads(path.read_text()), 'calibration': {**GOOD.to_json(), **change}}))
    with pytest.raises(GalleryError, match='calibration'):
        FaissGallery.load(tmp_path / 'g')


def test_a_gallery_keeps_its_calibration(tmp_path):
    rng = np.random.default_rng(0)
    gallery = FaissGallery(make_similarity(rng))
    gallery.add(make_embeddings(rng, 20), make_items(rng, 20))
    gallery.save(tmp_path / 'g')
    assert FaissGallery.load(tmp_path / 'g').calibration is None
    other = FaissGallery.load(tmp_path / 'g')
    with other.changing():
        other.set_calibration(GOOD)
    with gallery.changing():
        gallery.remove([3])
    again = FaissGallery.load(tmp_path / 'g')
    assert again.calibration == gallery.calibration == GOOD and len(again) == 19
    copy = FaissGallery(gallery.similarity)
    copy.save(tmp_path / 'copy')
    transfer(again, copy)
    assert FaissGallery.load(tmp_path / 'copy').calibration == GOOD
    again.set_calibration(None)
    again.save()
    assert FaissGallery.load(tmp_path / 'g').calibration is None


def test_a_gallery_of_milvus_keeps_its_calibration(tmp_path):
    pytest.importorskip('pymilvus', reason='galleries in Milvus need pymilvus')
    from mmdf2.retrieval import MilvusGallery

    rng = np.random.default_rng(0)
    gallery = MilvusGallery.create(tmp_path / 'shop.db', make_similarity(rng))
    assert gallery.calibration is None
    gallery.set_calibration(GOOD)
    gallery.add(make_embeddings(rng, 5), make_items(rng, 5))
    assert gallery.calibration == GOOD
    gallery.close()
    again = MilvusGallery.load(tmp_path / 'shop.db')
    assert again.calibration == GOOD
    again.close()
