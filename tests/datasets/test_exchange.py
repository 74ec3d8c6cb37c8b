import json

import numpy as np
import pytest
from PIL import Image, ImageDraw
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mmdf2.categories import CATEGORIES, OKS_SIGMAS
from mmdf2.datasets.exchange import export
from mmdf2.datasets.prepare import open_or_prepare


@pytest.fixture(scope='module')
def store(tiny_root):
    return open_or_prepare(tiny_root, 'validation')


@pytest.fixture(scope='module')
def folder(store, tmp_path_factory):
    folder = tmp_path_factory.mktemp('exchange')
    names = [path.name for path in export(store, folder, 'validation')]
    assert names == [
        'instances_val.json',
        'keypoints_val_vis.json',
        'keypoints_val_vis_and_occ.json',
        'val_query.json',
        'val_gallery.json',
    ]
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)
    return folder


def items_of(store):
    return [(image, item) for image in map(store.image, range(len(store))) for item in image.items]


@pytest.mark.parametrize(('name', 'lowest'), [('keypoints_val_vis.json', 2), ('keypoints_val_vis_and_occ.json', 1)])
def test_keypoints(store, folder, name, lowest):
    coco = COCO(folder / name)
    annotations = coco.loadAnns(coco.getAnnIds())
    assert [annotation['id'] for annotation in annotations] == list(range(1, len(annotations) + 1))
    for annotation, (image, item) in zip(annotations, items_of(store), strict=True):
        assert (annotation['image_id'], annotation['category_id']) == (image.image_id, item.category_id)
        assert (annotation['pair_id'], annotation['style'], annotation['iscrowd']) == (image.pair_id, item.style, 0)
        x1, y1, x2, y2 = item.bbox
        assert annotation['bbox'] == [x1, y1, x2 - x1, y2 - y1]
        assert annotation['area'] == (x2 - x1) * (y2 - y1)
        dense = np.array(annotation['keypoints']).reshape(294, 3)
        kept = item.landmarks[:, 2] >= lowest
        assert annotation['num_keypoints'] == kept.sum() == (dense[:, 2] > 0).sum()
        own = dense[CATEGORIES[item.label].dense_slice]
        assert np.array_equal(own[kept], item.landmarks[kept]) and not own[~kept].any()
        assert np.count_nonzero(dense) == np.count_nonzero(own)


def test_truth_scores_one_against_itself(folder):
    sigmas = np.concatenate([row[np.isfinite(row)] for row in OKS_SIGMAS])
    for name, kind in (
        ('instances_val.json', 'bbox'),
        ('instances_val.json', 'segm'),
        ('keypoints_val_vis.json', 'keypoints'),
        ('keypoints_val_vis_and_occ.json', 'keypoints'),
    ):
        coco = COCO(folder / name)
        results = [{**annotation, 'score': 0.9} for annotation in coco.loadAnns(coco.getAnnIds())]
        evaluation = COCOeval(coco, coco.loadRes(results), kind)
        if kind == 'keypoints':
            evaluation.params.kpt_oks_sigmas = sigmas
        evaluation.evaluate()
        evaluation.accumulate()
        precision = evaluation.eval['precision'][:, :, :, 0, -1]
        assert np.allclose(precision[precision > -1], 1) and (precision > -1).any()


def test_masks_are_the_union_of_the_polygons(store, folder):
    coco = COCO(folder / 'instances_val.json')
    for annotation, (image, item) in zip(coco.loadAnns(coco.getAnnIds()), items_of(store), strict=True):
        drawn = Image.new('1', (image.width, image.height))
        for polygon in item.segmentation:
            ImageDraw.Draw(drawn).polygon([tuple(point) for point in polygon], fill=1)
        mask = coco.annToMask(annotation).astype(bool)
        assert (mask & np.array(drawn)).sum() / (mask | np.array(drawn)).sum() > 0.9


def test_item_without_polygons_is_an_empty_mask(tmp_path, write_split, make_item):
    from mmdf2.datasets.annotation import ImageAnnotation

    item = make_item(np.random.default_rng(0), 1, 1, 1, (96, 64))
    item.segmentation = []
    write_split(tmp_path, 'train', [ImageAnnotation('user', 1, [item])], (96, 64))
    path = export(open_or_prepare(tmp_path, 'train'), tmp_path, 'train')[0]
    coco = COCO(path)
    mask = coco.annToMask(coco.loadAnns([1])[0])
    assert mask.shape == (64, 96) and not mask.any()


def test_retrieval_lists(store, folder):
    queries = json.loads((folder / 'val_query.json').read_text())
    gallery = json.loads((folder / 'val_gallery.json').read_text())
    users = [(image, item) for image, item in items_of(store) if image.source == 'user']
    shops = [(image, item) for image, item in items_of(store) if image.source == 'shop']
    assert queries == [
        {
            'query_image_id': image.image_id,
            'style': item.style,
            'cls': item.category_id,
            'pair_id': image.pair_id,
            'bbox': list(item.bbox),
        }
        for image, item in users
    ]
    assert gallery == [
        {'gallery_image_id': image.image_id, 'style': item.style, 'pair_id': image.pair_id, 'bbox': list(item.bbox)}
        for image, item in shops
    ]
    assert any(query['style'] == 0 for query in queries)


def test_exported_json_is_plain(folder):
    text = (folder / 'instances_val.json').read_text()
    assert 'NaN' not in text and json.loads(text)['categories'][12]['name'] == 'sling dress'
    assert list(json.loads(text)['images'][0]) == ['id', 'file_name', 'width', 'height']
