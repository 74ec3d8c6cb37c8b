"""tools/mask_tool.py as an annotator starts it."""

import json
import shutil

import pytest
from made_photos import write_photos
from PIL import Image, ImageOps
from tiny_run import run_tool

from mmdf2.datasets.annotation import read_annotation


def test_writes_contours_and_a_page(tiny_root, tmp_path):
    printed = run_tool('mask_tool.py', tiny_root, '--split', 'train', '--out', tmp_path)
    lines = [json.loads(line) for line in (tmp_path / 'contours.jsonl').read_text().splitlines()]
    assert f'{len(lines)} items' in printed and len(lines) > 20
    assert {line['image'] for line in lines} == {f'{number:06d}.jpg' for number in range(1, 25)}
    assert all(0 <= line['inside'] <= 1 and 0 <= line['iou'] <= 1 for line in lines if line['contour'])
    assert 'Contours from landmarks' in (tmp_path / 'contours.html').read_text()
    assert not (tmp_path / 'annos').exists()


def test_fills_missing_masks_and_leaves_the_others(tiny_root, tmp_path):
    root = tmp_path / 'data'
    shutil.copytree(tiny_root / 'train', root / 'new')
    path = root / 'new' / 'annos' / '000001.json'
    annotation = json.loads(path.read_text())
    del annotation['item1']['segmentation']
    path.write_text(json.dumps(annotation))
    broken = root / 'new' / 'annos' / '000002.json'
    broken.write_text('{')
    printed = run_tool('mask_tool.py', root, '--split', 'new', '--out', tmp_path / 'out', '--fill')
    assert '1 masks filled' in printed and '000002.json' in printed
    filled = read_annotation(tmp_path / 'out' / 'annos' / '000001.json')
    (line,) = (
        json.loads(text)
        for text in (tmp_path / 'out' / 'contours.jsonl').read_text().splitlines()
        if '000001.jpg", "item": 1' in text
    )
    assert [polygon.ravel().tolist() for polygon in filled.items[0].segmentation] == line['contour']
    assert line['inside'] is None
    before, after = (read_annotation(folder / '000003.json') for folder in (root / 'new/annos', tmp_path / 'out/annos'))
    for one, two in zip(before.items, after.items, strict=True):
        assert [p.tolist() for p in one.segmentation] == [p.tolist() for p in two.segmentation]
    assert not (tmp_path / 'out' / 'annos' / '000002.json').exists()


def test_never_writes_over_the_annotation_of_the_dataset(tiny_root, tmp_path):
    root = tmp_path / 'data'
    shutil.copytree(tiny_root / 'train', root / 'new')
    before = {path.name: path.read_bytes() for path in (root / 'new/annos').iterdir()}
    (tmp_path / 'link').symlink_to(root / 'new')
    for out in (root / 'new', root / 'new/image/..', tmp_path / 'link'):
        printed = run_tool('mask_tool.py', root, '--split', 'new', '--out', out, '--fill', expect=1)
        assert "the dataset's own annotation is there" in printed
    assert {path.name: path.read_bytes() for path in (root / 'new/annos').iterdir()} == before


@pytest.mark.parametrize('kind', ['jpg', 'png', 'xmp'])
def test_boxes_on_a_photo_that_lies_on_its_side_stay_as_they_are(tmp_path, kind):
    root = write_photos(tmp_path / 'data')
    path = root / 'validation' / 'image' / '000265.jpg'
    with Image.open(path) as photo:
        assert photo.size == (750, 560) and ImageOps.exif_transpose(photo).size == (560, 750)
        photo.load()
        stored, exif = photo.copy(), photo.getexif()
    path.unlink()
    if kind == 'xmp':
        xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
        stored.save(path, xmp=xmp)
    else:
        stored.save(path.with_suffix(f'.{kind}'), exif=exif)
    annotation = root / 'validation' / 'annos' / '000265.json'
    given = json.loads(annotation.read_text())
    assert given['item1']['bounding_box'][3] > 560  # beyond the height of the photo as it is stored
    del given['item1']['segmentation']
    annotation.write_text(json.dumps(given))
    printed = run_tool('mask_tool.py', root, '--out', tmp_path / 'out', '--fill')
    filled = json.loads((tmp_path / 'out' / 'annos' / '000265.json').read_text())
    assert 'problem' not in printed
    assert filled['item1']['bounding_box'] == given['item1']['bounding_box']
    assert filled['item1']['landmarks'] == given['item1']['landmarks']
    assert max(y for polygon in filled['item1']['segmentation'] for y in polygon[1::2]) > 560


def test_a_missing_folder_ends_with_one_line(tmp_path):
    printed = run_tool('mask_tool.py', tmp_path, '--out', tmp_path / 'out', expect=1)
    assert printed.startswith('error: ') and 'Traceback' not in printed
