"""A picture of the wardrobe for the documentation: every category, from shops and from users."""

from pathlib import Path

import cv2
import numpy as np

from mmdf2.categories import CATEGORIES, NUM_CATEGORIES
from mmdf2.files import write_bytes
from mmdf2.wardrobe.picture import take
from mmdf2.wardrobe.plan import Pair, plan_pairs, plan_shots
from mmdf2.wardrobe.version import CURRENT_VERSION, Version

COLUMNS = (('shop', 2), ('user', 4))
CAPTION = 18


def write_contact_sheet(path, seed: int = 0, size: int = 180, version: Version = CURRENT_VERSION) -> Path:
    """Writes a JPEG with one row per category: its name, and two shop and four user pictures of one identity.

    Args:
        path: The JPEG file. Its folder is created if it is missing.
        seed: Seed of the wardrobe that is shown.
        size: Side of a picture in pixels.
        version: How the wardrobe is drawn.

    Raises:
        ValueError: The file's name does not end in .jpg.
    """
    path = Path(path)
    if path.suffix.lower() not in ('.jpg', '.jpeg'):
        raise ValueError(f'cannot write {path}: its name must end in .jpg')
    pairs: dict[int, Pair] = {}
    for pair in plan_pairs('train', 60, seed, version):
        pairs.setdefault(pair.clothes[0].cut.category_id, pair)
    blocks = [_block(pairs[category_id], seed, size, version) for category_id in range(1, NUM_CATEGORIES + 1)]
    blocks.append(np.full_like(blocks[0], 255))
    half = len(blocks) // 2
    sheet = np.concatenate([np.concatenate(blocks[:half]), np.concatenate(blocks[half:])], axis=1)
    _, jpeg = cv2.imencode('.jpg', sheet, [cv2.IMWRITE_JPEG_QUALITY, 85])
    write_bytes(path, jpeg.tobytes())
    return path


def _block(pair, seed, size, version) -> np.ndarray:
    (_, shop), (_, user) = COLUMNS
    shots = [shot for shot in plan_shots('train', [pair], (shop, user), seed, version) if shot.style == 1]
    cells = [_fit(take(shot, 2 * size)[0], size) for shot in shots]
    caption = np.full((CAPTION, size * len(cells), 3), 255, dtype=np.uint8)
    name = CATEGORIES[pair.clothes[0].cut.category_id - 1].name
    cv2.putText(caption, name, (4, 13), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (40, 40, 40), 1, cv2.LINE_AA)
    return np.concatenate([caption, np.concatenate(cells, axis=1)])


def _fit(image: np.ndarray, size: int) -> np.ndarray:
    height, width = image.shape[:2]
    cell = np.full((size, size, 3), 255, dtype=np.uint8)
    scale = size / max(height, width)
    small = cv2.resize(image, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_AREA)
    left = (size - small.shape[1]) // 2
    cell[: small.shape[0], left : left + small.shape[1]] = small
    return cell
