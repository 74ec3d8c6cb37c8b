"""The check of compressed masks, on masks that pycocotools made and on broken ones."""

import numpy as np
import pytest
from pycocotools import mask as mask_utils

from mmdf2.evaluation.files.masks import encode_masks, to_compressed, unfit


def random_masks(rng, count):
    """Masks with many and with few runs, with long and with short runs."""
    sizes = rng.integers(1, 400, (count, 2))
    masks = [rng.random(size) < rng.choice([0, 0.001, 0.1, 0.5, 1]) for size in sizes]
    return masks, [mask_utils.encode(np.asfortranarray(mask.astype(np.uint8))) for mask in masks]


@pytest.mark.parametrize('seed', range(5))
def test_real_masks_fit_and_cut_or_lengthened_ones_do_not(seed):
    rng = np.random.default_rng(seed)
    masks, encoded = random_masks(rng, 300)
    pixels = np.array([mask.size for mask in masks])
    counts = [mask['counts'] for mask in encoded]
    assert not unfit(counts, pixels).any()
    assert unfit(counts, pixels + 1).all()
    assert unfit([text[:-1] for text in counts], pixels)[[len(text) > 1 for text in counts]].all()
    assert unfit([text + b'1' for text in counts], pixels).all()


@pytest.mark.parametrize('dtype', [bool, np.uint8])
def test_masks_are_encoded_as_pycocotools_does(dtype):
    rng = np.random.default_rng(3)
    for count, size in [
        (1, (1, 1)),
        (3, (1, 9)),
        (3, (9, 1)),
        *zip(rng.integers(1, 6, 40), rng.integers(1, 90, (40, 2)), strict=True),
    ]:
        masks = (rng.random((count, *size)) < rng.choice([0, 0.01, 0.5, 1])).astype(dtype)
        given = [masks, masks[::-1, ::-1], np.asfortranarray(masks), masks[:, :, ::-1]]
        for values in given:
            expected = [mask_utils.encode(np.asfortranarray(mask, dtype=np.uint8)) for mask in values]
            assert encode_masks(values) == expected
            assert all(mask['size'] == list(size) for mask in expected)
    assert encode_masks(np.zeros((0, 4, 5), dtype)) == []


def test_a_broken_mask_does_not_hide_those_beside_it():
    rng = np.random.default_rng(9)
    masks, encoded = random_masks(rng, 600)
    pixels = np.array([mask.size for mask in masks])
    counts = [mask['counts'] for mask in encoded]
    broken = np.sort(rng.choice(600, 60, replace=False))
    for row, text in zip(broken, [b'', b'P', b'o' * 50, b'\x00', b'~~~', b'0O'] * 10, strict=True):
        counts[row] = text
    assert np.flatnonzero(unfit(counts, pixels)).tolist() == broken.tolist()


@pytest.mark.parametrize('seed', range(20))
def test_changed_characters_are_found_or_harmless(seed):
    """The runs of a mask that passes the check are not negative and add up to the pixels of the image."""
    rng = np.random.default_rng(seed)
    _, encoded = random_masks(rng, 20)
    passed = 0
    for mask in encoded:
        for _ in range(30):
            text = bytearray(mask['counts'])
            text[rng.integers(len(text))] = rng.integers(48, 112)
            if unfit([bytes(text)], [mask['size'][0] * mask['size'][1]])[0]:
                continue
            passed += 1
            runs = decoded_runs(bytes(text))
            assert min(runs) >= 0 and sum(runs) == mask['size'][0] * mask['size'][1]
    assert passed


def decoded_runs(text):
    """The run lengths, by the definition of the format."""
    runs, place = [], 0
    while place < len(text):
        value, shift, more = 0, 0, True
        while more:
            bits = text[place] - 48
            value |= (bits & 31) << shift
            more, place, shift = bool(bits & 32), place + 1, shift + 5
            if not more and bits & 16:
                value |= -1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
    return runs


def test_all_forms_make_the_same_mask():
    mask = np.zeros((6, 9), np.uint8)
    mask[2:5, 3:7] = 1
    encoded = mask_utils.encode(np.asfortranarray(mask))
    flat = mask.ravel(order='F')
    borders = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff([0, *borders, flat.size]).tolist()
    forms = [
        {'size': [6, 9], 'counts': encoded['counts'].decode()},
        {'size': [6, 9], 'counts': runs},
        [[3, 2, 7, 2, 7, 5, 3, 5]],
    ]
    for form in forms:
        np.testing.assert_array_equal(mask_utils.decode(to_compressed(form, (6, 9))), mask)


def test_a_small_polygon_that_would_take_all_memory_is_refused():
    with pytest.raises(ValueError, match='outlines have 2000000 pixels at most'):
        to_compressed([[-9e4, 1, 9e4, 2] * 8], (6, 9))
