"""Mirrored images and boxes, and embeddings averaged with those of the mirror image."""

import pytest
import torch

from mmdf2.models.mirroring import mirrored_boxes, mirrored_images

from .tiny import CHANNELS, SIZE, build_tiny, make_batch


def test_each_image_is_mirrored_where_it_is():
    images = torch.arange(2 * 3 * 2 * 5.0).view(2, 3, 2, 5)
    images[1, :, :, 3:] = 0
    before = images.clone()
    found = mirrored_images(images, [5, 3])
    assert torch.equal(images, before)
    for row in range(2):
        for column in range(5):
            assert torch.equal(found[0, :, row, column], images[0, :, row, 4 - column])
            source = images[1, :, row, 2 - column] if column < 3 else torch.zeros(3)
            assert torch.equal(found[1, :, row, column], source)
    assert torch.equal(mirrored_images(found, [5, 3]), images)


def test_a_mirrored_box_covers_the_same_pixels():
    image = torch.zeros(1, 1, 6, 9)
    image[..., 2:5, 1:4] = 1
    ((x1, y1, x2, y2),) = mirrored_boxes(torch.tensor([[1, 2, 4, 5]]), 9).tolist()
    mirrored = mirrored_images(image, [9])
    assert mirrored[..., y1:y2, x1:x2].sum() == mirrored.sum() == 9
    boxes = torch.rand(4, 4)
    torch.testing.assert_close(mirrored_boxes(mirrored_boxes(boxes, 9.0), 9.0), boxes, atol=1e-6, rtol=0)
    assert mirrored_boxes(torch.zeros(0, 4), 9).shape == (0, 4)


def build(flip_average: bool):
    # The features of every box are smooth, so a box of whole pixels, sampled at their centres, is mirrored exactly.
    match_head = {
        'type': 'mmdf2.MatchHead',
        'sources': ('pose', 'class'),
        'in_channels': 24 + CHANNELS,
        'conv_channels': (16,),
        'embed_dims': 8,
    }
    model = build_tiny(match_head=match_head)
    model.roi_head.test_cfg.flip_average = flip_average
    return model.eval()


def narrow(images, samples, width=70):
    """A batch whose second half has padding on the right, as images of another shape have."""
    for index in range(len(samples) // 2, len(samples)):
        images[index, :, :, width:] = 0
        samples[index].set_metainfo({'img_shape': (SIZE, width), 'ori_shape': (SIZE * 2, width * 2)})
    return images, samples


def widths_of(samples) -> list[int]:
    return [sample.img_shape[1] for sample in samples]


@torch.no_grad()
def predict(model, images, samples, rescale=True):
    return model.predict(images, samples, rescale=rescale)


@pytest.mark.parametrize('rescale', [True, False])
def test_an_image_and_its_mirror_image_have_the_same_embeddings(rescale):
    embeddings = {}
    for flip_average in (True, False):
        model = build(flip_average)
        for mirrored in (False, True):
            images, samples = narrow(*make_batch(scale=0.5))
            if mirrored:
                images = mirrored_images(images, widths_of(samples))
            for sample, width in zip(samples, widths_of(samples), strict=True):
                boxes = sample.gt_instances.bboxes
                boxes = mirrored_boxes(boxes, width) if mirrored else boxes
                # Annotation is in the coordinates of the original image, twice as large.
                sample.gt_instances.bboxes = boxes * 2
            found = predict(model, images, samples, rescale)
            embeddings[flip_average, mirrored] = torch.cat([sample.gt_box_instances.embeddings for sample in found])
    torch.testing.assert_close(embeddings[True, True], embeddings[True, False], atol=1e-5, rtol=1e-4)
    assert not torch.allclose(embeddings[False, True], embeddings[False, False], atol=1e-3, rtol=1e-2)
    mean = (embeddings[False, True] + embeddings[False, False]) / 2
    torch.testing.assert_close(embeddings[True, False], mean, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize('rescale', [True, False])
def test_detections_are_averaged_on_their_own_boxes_and_else_left_alone(rescale):
    plain, averaged = (predict(build(flip), *narrow(*make_batch(scale=0.5)), rescale) for flip in (False, True))
    model = build(False)
    images, samples = narrow(*make_batch(scale=0.5))
    with torch.no_grad():
        levels = model.extract_feat(mirrored_images(images, widths_of(samples)))
    for number, (one, other) in enumerate(zip(plain, averaged, strict=True)):
        before, after = one.pred_instances, other.pred_instances
        assert len(after)
        for name in ('bboxes', 'scores', 'labels', 'keypoints', 'masks'):
            assert torch.equal(before[name], after[name])
        boxes = mirrored_boxes(before.bboxes * (0.5 if rescale else 1), one.img_shape[1])
        with torch.no_grad():
            rows = model.roi_head._embed_boxes(tuple(level[number : number + 1] for level in levels), [boxes])[0]
        torch.testing.assert_close(after.embeddings, (before.embeddings + rows) / 2, atol=1e-5, rtol=1e-4)


def test_off_by_default_and_without_detections():
    assert 'flip_average' not in build_tiny().roi_head.test_cfg
    model = build(True)
    model.roi_head.test_cfg.score_thr = 0.999
    for sample in predict(model, *make_batch()):
        assert sample.pred_instances.embeddings.shape == (0, 8)


def test_a_model_without_matching_ignores_it():
    model = build_tiny(match_head=None)
    model.roi_head.test_cfg.flip_average = True
    assert 'embeddings' not in predict(model.eval(), *make_batch())[0].pred_instances
