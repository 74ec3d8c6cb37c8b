"""Versions of the wardrobe: what a published version draws stays, and additions can be left out one by one."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from mmdf2.datasets.annotation import read_annotation
from mmdf2.files import write_json
from mmdf2.images import write_image
from mmdf2.wardrobe import make_wardrobe
from mmdf2.wardrobe.picture import take
from mmdf2.wardrobe.plan import plan_pairs, plan_shots
from mmdf2.wardrobe.version import ADDITIONS, VERSIONS, Version

SMALL = {'size': 96, 'workers': 1, 'progress': False, 'images_per_identity': (1, 1)}
# Made by this module's main() when the version was published.
PUBLISHED = {number: Path(__file__).with_name(f'version_{number}.json') for number in VERSIONS}


def pictures(version, count=6):
    """The first images of a wardrobe with their annotation."""
    shots = plan_shots('train', plan_pairs('train', max(6, count // 2), 8, version), (1, 1), 8, version)
    return [take(shot, 200) for shot in shots[:count]]


def summary(version):
    """What stays of a version: each image made tiny, and each item's box, codes and landmarks."""
    return [
        {
            'tiny': cv2.resize(image, (6, 6), interpolation=cv2.INTER_AREA).reshape(-1).tolist(),
            'items': [
                {
                    'codes': [item.category_id, item.style, item.scale, item.occlusion, item.zoom_in, item.viewpoint],
                    'box': np.round(item.bbox, 2).tolist(),
                    'landmarks': np.round(item.landmarks, 2).reshape(-1).tolist(),
                }
                for item in annotation.items
            ],
        }
        for image, annotation in pictures(version)
    ]


@pytest.mark.parametrize('number', sorted(PUBLISHED))
def test_a_published_version_is_drawn_as_ever(number):
    """Libraries may round in another way, so pixels may differ by a few levels and points by a fraction of a pixel."""
    published, drawn = json.loads(PUBLISHED[number].read_text()), summary(Version(number))
    assert len(drawn) == len(published)
    for before, now in zip(published, drawn, strict=True):
        np.testing.assert_allclose(now['tiny'], before['tiny'], atol=3)
        assert [item['codes'] for item in now['items']] == [item['codes'] for item in before['items']]
        for one, other in zip(now['items'], before['items'], strict=True):
            np.testing.assert_allclose(one['box'], other['box'], atol=1)
            np.testing.assert_allclose(one['landmarks'], other['landmarks'], atol=0.05)


@pytest.mark.parametrize('addition', ADDITIONS)
def test_each_addition_changes_pictures(addition):
    count = 30 if addition == 'company' else 6  # few photos show company
    whole, without = pictures(Version(2), count), pictures(Version(2, without=(addition,)), count)
    changed = [not np.array_equal(one, other) for (one, _), (other, _) in zip(whole, without, strict=True)]
    assert any(changed)


@pytest.mark.parametrize('addition', ['cloth', 'drapery', 'places', 'light', 'photo'])
def test_additions_of_colour_alone_leave_the_annotation(addition):
    for (_, one), (_, other) in zip(pictures(Version(2)), pictures(Version(2, without=(addition,))), strict=True):
        assert len(one.items) == len(other.items)
        for first, second in zip(one.items, other.items, strict=True):
            np.testing.assert_array_equal(first.landmarks, second.landmarks)


def test_version_2_without_additions_differs_from_version_1_by_its_habits_alone():
    """The same pairs are planned, so that an identity has the same cut in both."""
    bare = Version(2, without=tuple(ADDITIONS))
    assert plan_pairs('train', 20, 3, bare) == plan_pairs('train', 20, 3, Version(1))


def test_the_manifest_names_the_version(tmp_path):
    make_wardrobe(tmp_path, 1, version=Version(2, without=('light', 'cloth')), **SMALL)
    manifest = json.loads((tmp_path / 'train' / 'wardrobe.json').read_text())
    assert manifest['version'] == 2
    assert manifest['without'] == ['cloth', 'light']
    with pytest.raises(ValueError, match=r"'version': 2.*not by \{'version': 1"):
        make_wardrobe(tmp_path, 1, version=Version(1), **SMALL)


def test_a_wardrobe_from_before_versions_is_one_of_version_1(tmp_path):
    make_wardrobe(tmp_path, 1, version=Version(1), **SMALL)
    path = tmp_path / 'train' / 'wardrobe.json'
    manifest = json.loads(path.read_text())
    del manifest['version']
    path.write_text(json.dumps({'drawing': 4, **manifest}))
    make_wardrobe(tmp_path, 1, version=Version(1), **SMALL)
    with pytest.raises(ValueError, match='choose another folder'):
        make_wardrobe(tmp_path, 1, version=Version(2), **SMALL)


def test_unknown_versions_and_additions_are_named():
    with pytest.raises(ValueError, match=r'version must be one of \[1, 2\], got 3'):
        Version(3)
    with pytest.raises(ValueError, match="not 'sunshine'"):
        Version(2, without=('sunshine',))
    with pytest.raises(ValueError, match="not 'cloth'"):
        Version(1, without=('cloth',))
    with pytest.raises(ValueError, match="needs the addition 'places'"):
        Version(1, backgrounds='somewhere')


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(0)
    folder = tmp_path / 'photos'
    for name in ('a', 'deep/b'):
        write_image(folder / f'{name}.png', rng.integers(0, 256, (90, 120, 3), dtype=np.uint8))
    (folder / 'notes.txt').write_text('not an image')
    return folder


def test_photos_of_places_and_of_cloth_are_used(tmp_path, photos):
    plain = make_wardrobe(tmp_path / 'plain', 6, version=Version(2), **SMALL)
    version = Version(2, backgrounds=str(photos), textures=str(photos))
    one = make_wardrobe(tmp_path / 'one', 6, version=version, **SMALL)
    two = make_wardrobe(tmp_path / 'two', 6, version=version, **(SMALL | {'workers': 2}))
    images = [sorted((root / 'train' / 'image').iterdir()) for root in (plain, one, two)]
    contents = [[path.read_bytes() for path in paths] for paths in images]
    assert contents[1] == contents[2]
    assert sum(a != b for a, b in zip(contents[0], contents[1], strict=True)) >= 4
    for path in (one / 'train' / 'annos').iterdir():
        image = cv2.imread(str(one / 'train' / 'image' / f'{path.stem}.jpg'))
        read_annotation(path, image.shape[1::-1])


def test_another_folder_of_photos_is_another_wardrobe(tmp_path, photos):
    version = Version(2, backgrounds=str(photos))
    make_wardrobe(tmp_path / 'out', 1, version=version, **SMALL)
    (photos / 'a.png').rename(photos / 'c.png')
    with pytest.raises(ValueError, match='choose another folder'):
        make_wardrobe(tmp_path / 'out', 1, version=version, **SMALL)


def test_folders_that_cannot_be_used_are_named(tmp_path, photos):
    for folder, message in ((tmp_path / 'nowhere', 'there is no such folder'), (tmp_path / 'empty', 'holds no image')):
        (tmp_path / 'empty').mkdir(exist_ok=True)
        with pytest.raises(ValueError, match=message):
            make_wardrobe(tmp_path / 'out', 1, version=Version(2, textures=str(folder)), **SMALL)
    (photos / 'cut.jpg').write_bytes(b'\xff\xd8 no more')
    with pytest.raises(ValueError, match=r'cut\.jpg.*remove it'):
        make_wardrobe(tmp_path / 'out', 1, version=Version(2, backgrounds=str(photos)), **SMALL)
    assert not (tmp_path / 'out').exists()


def test_version_2_has_the_published_shares_of_every_column():
    """Every share is within 5 points of the published one; 400 images leave three points for chance."""
    version = Version(2)
    shots = plan_shots('train', plan_pairs('train', 80, 23, version), (2, 3), 21, version)
    items = [item for shot in shots for item in take(shot, 120)[1].items]
    published = {
        'scale': (0.26, 0.50, 0.24),
        'occlusion': (0.47, 0.47, 0.06),
        'zoom_in': (0.67, 0.21, 0.12),
        'viewpoint': (0.07, 0.78, 0.15),
    }
    for name, shares in published.items():
        values = np.array([getattr(item, name) for item in items])
        np.testing.assert_allclose([(values == code).mean() for code in (1, 2, 3)], shares, atol=0.08, err_msg=name)


def main():
    """Writes what the versions draw today; only for a version that has not been published yet."""
    for number, path in PUBLISHED.items():
        if not path.exists():
            write_json(path, summary(Version(number)), indent=None)


if __name__ == '__main__':
    main()
