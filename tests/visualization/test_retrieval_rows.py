"""Pictures of queries with their hits."""

import numpy as np
import pytest

from mmdf2.images import write_image
from mmdf2.visualization import RetrievalRow, draw_retrieval_rows
from mmdf2.visualization.drawing import NEUTRAL, RIGHT, WRONG
from mmdf2.visualization.retrieval_rows import crop_box


def photo(colour, size=(120, 90)):
    return np.full((*size, 3), colour, np.uint8)


def row(hits=3, **kwargs):
    fields = {
        'image': photo((10, 20, 250)),
        'box': [10, 10, 80, 100],
        'hit_images': [photo((200, 200, 40 * index)) for index in range(hits)],
        'hit_boxes': [[5, 5, 60, 90]] * hits,
        'correct': [index == 1 for index in range(hits)],
        'scores': np.linspace(1, -1, hits),
    }
    return RetrievalRow(**{**fields, **kwargs})


def count(picture, colour):
    return (picture == np.array(colour)).all(axis=2).sum()


def test_right_hits_are_framed_green_and_wrong_ones_red():
    picture = draw_retrieval_rows([row()], cell=100)
    assert count(picture, WRONG) == pytest.approx(2 * count(picture, RIGHT), rel=0.02)
    assert count(picture, NEUTRAL) == pytest.approx(count(picture, RIGHT), rel=0.02)
    columns = np.flatnonzero((picture == np.array(RIGHT)).all(axis=2).any(axis=0))
    red = np.flatnonzero((picture == np.array(WRONG)).all(axis=2).any(axis=0))
    assert red[0] < columns[0] and columns[-1] < red[-1]


def test_images_appear_in_their_cells_also_from_files(tmp_path):
    write_image(tmp_path / 'query.png', photo((10, 20, 250)))
    from_file = draw_retrieval_rows([row(image=str(tmp_path / 'query.png'))], cell=96)
    np.testing.assert_array_equal(from_file, draw_retrieval_rows([row()], cell=96))
    # The crop of a 70 x 90 box with its surroundings fills most of the cell.
    assert count(from_file, (10, 20, 250)) > 0.6 * 96 * 96


@pytest.mark.parametrize('context', [0.2, None])
def test_rows_of_different_lengths_line_up_and_a_missed_query_is_shown(context):
    picture = draw_retrieval_rows([row(hits=5), row(hits=0), row(hits=1, box=None)], cell=64, context=context)
    one = draw_retrieval_rows([row(hits=5)], cell=64, context=context)
    assert picture.shape == (3 * one.shape[0], one.shape[1], 3)
    np.testing.assert_array_equal(picture[: one.shape[0]], one)
    missed = picture[one.shape[0] : 2 * one.shape[0]]
    assert count(missed, WRONG) > 0 and count(missed, RIGHT) == 0


def test_whole_photo_keeps_its_shape_and_shows_the_box():
    picture = draw_retrieval_rows([row(hits=1, correct=[True])], cell=120, context=None)
    without = draw_retrieval_rows([row(hits=1, correct=[True], hit_boxes=[[-9, -9, 999, 999]])], cell=120, context=None)
    assert count(picture, RIGHT) > count(without, RIGHT)
    assert count(picture, (10, 20, 250)) == pytest.approx(120 * 90, rel=0.1)


@pytest.mark.parametrize(
    'box',
    [[0, 0, 4, 4], [30, 20, 50, 80], [85, 115, 200, 300], [200, 200, 300, 300], [40, 40, 40, 40], [-50, 5, -20, 9]],
)
def test_crop_is_a_part_of_the_image_and_never_empty(box):
    image = np.arange(120 * 90).reshape(120, 90, 1)
    crop = crop_box(image, box, 0.2)
    assert crop.size >= 1
    assert crop.base is not None


def test_crop_shows_all_of_the_box():
    image = np.zeros((300, 300, 3), np.uint8)
    image[100:201, 120:151] = 255
    crop = crop_box(image, [120, 100, 151, 201], 0.2)
    assert (crop == 255).sum() == 101 * 31 * 3
    assert abs(crop.shape[0] - crop.shape[1]) <= 1
    assert crop.shape[0] == pytest.approx(101 * 1.4, abs=2)


def test_bad_rows_are_named():
    with pytest.raises(ValueError, match='at least one query'):
        draw_retrieval_rows([])
    with pytest.raises(ValueError, match='correct must be as many as its hit_images, 3, got 1'):
        draw_retrieval_rows([row(correct=[True])])
    with pytest.raises(ValueError, match='48 pixels'):
        draw_retrieval_rows([row()], cell=10)
