"""Two made photos with annotation, which replace real photos of the dataset: those may not be copied.

What they have in common with real photos of the dataset: JPEG files of 750 pixels on the longer side, polygons in
hundredths of a pixel, landmarks in whole pixels with occluded and unlabelled ones among them, outlines of many points
along the garment, and in one photo a mask of several pieces that goes on below the garment's last landmark, to the
border of the photo. The second file also has an orientation tag, as phones write it: it is stored lying on its side.
"""

import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

LONG_SLEEVE_DRESS = 11
ORIENTATION_TAG, TURN_CLOCKWISE = 0x0112, 6
# Landmark number (from 1, as in the published figure) -> distance from the middle and height, in pixels, of the left
# half of a dress of which landmark 1 lies at (0, 90).
LEFT_HALF = {
    1: (0, 90), 2: (60, 80), 3: (40, 110), 4: (0, 125),
    7: (115, 110), 8: (135, 170), 9: (150, 230), 10: (165, 290), 11: (175, 350),
    12: (130, 355), 13: (120, 300), 14: (112, 245), 15: (104, 200), 16: (97, 165),
    17: (95, 200), 18: (90, 260), 19: (92, 330), 20: (130, 480), 21: (200, 640), 22: (0, 650),
}  # fmt: skip
# Around the dress as it is worn and seen from the front.
OUTLINE = (*range(2, 7), *range(37, 6, -1))
HEM_MIDDLE = 22
OCCLUDED = (1, 14, 30)
UNLABELLED = (33,)


def write_photos(root) -> Path:
    """Writes ``validation/image/00026{4,5}.jpg`` and their annotation in ``validation/annos``; returns ``root``.

    The first photo is shown 750 x 750 pixels in size, the second 560 x 750.
    """
    whole = _landmarks(middle=375)
    _write(root, 264, (750, 750), whole, [_outline(whole)], style=1)
    cut = _landmarks(middle=280)
    body = _outline(cut, bottom=749)
    pieces = [_rectangle(40, 420, 60, 470), _rectangle(66, 430, 80, 465), _rectangle(500, 420, 520, 460)]
    _write(root, 265, (560, 750), cut, [body, *pieces], style=2)
    return Path(root)


def _landmarks(middle: int) -> dict[int, tuple[float, float]]:
    points = {}
    for number, (distance, y) in LEFT_HALF.items():
        points[number] = (middle - distance, y)
        if distance:
            # The numbers of a mirrored pair add up to 8 at the neck and to 44 elsewhere.
            points[(8 if number < 7 else 44) - number] = (middle + distance, y)
    return points


def _outline(points: dict[int, tuple[float, float]], bottom: float | None = None) -> np.ndarray:
    """The landmarks on the outline and a point in the middle of each two, a little off their line.

    With ``bottom``, the garment goes on below the ends of its hem down to that height.
    """
    corners = []
    for number in OUTLINE:
        if number == HEM_MIDDLE and bottom is not None:
            corners += [(points[HEM_MIDDLE + 1][0] + 20, bottom), (points[HEM_MIDDLE - 1][0] - 20, bottom)]
        else:
            corners.append(points[number])
    outline = np.array(corners, dtype=np.float64)
    middles = (outline + np.roll(outline, -1, axis=0)) / 2 + (0.25, 0.04)
    return np.stack([outline, middles], axis=1).reshape(-1, 2)


def _rectangle(x1: float, y1: float, x2: float, y2: float) -> np.ndarray:
    return np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2 + 0.5]], dtype=np.float64)


def _write(root, image_id: int, size: tuple[int, int], points: dict, polygons: list[np.ndarray], style: int) -> None:
    folder = Path(root, 'validation')
    for name in ('image', 'annos'):
        (folder / name).mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(image_id)
    photo = Image.fromarray(rng.integers(90, 220, (6, 6, 3), dtype=np.uint8)).resize(size, Image.Resampling.BILINEAR)
    for polygon in polygons:
        ImageDraw.Draw(photo).polygon([tuple(point) for point in polygon], fill=(60, 40, 110))
    exif = Image.Exif()
    if size[0] != size[1]:
        photo = photo.transpose(Image.Transpose.ROTATE_90)
        exif[ORIENTATION_TAG] = TURN_CLOCKWISE
    photo.save(folder / 'image' / f'{image_id:06d}.jpg', quality=90, exif=exif)

    landmarks = []
    for number in sorted(points):
        x, y = points[number]
        landmarks += [0, 0, 0] if number in UNLABELLED else [x, y, 1 if number in OCCLUDED else 2]
    corners = np.concatenate(polygons)
    item = {
        'segmentation': [[_plain(value) for value in polygon.ravel().tolist()] for polygon in polygons],
        'scale': 3,
        'viewpoint': 2,
        'zoom_in': 2,
        'landmarks': landmarks,
        'style': style,
        'bounding_box': [int(value) for value in (*corners.min(axis=0), *np.ceil(corners.max(axis=0)))],
        'category_id': LONG_SLEEVE_DRESS,
        'occlusion': 1,
        'category_name': 'long sleeve dress',
    }
    annotation = {'source': 'user', 'pair_id': 22, 'item1': item}
    (folder / 'annos' / f'{image_id:06d}.json').write_text(json.dumps(annotation))


def _plain(value: float) -> float:
    value = round(value, 2)
    return int(value) if value == int(value) else value
