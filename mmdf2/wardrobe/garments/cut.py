"""The cut of a garment: what all colours of a garment share. Lengths are in centimetres."""

from dataclasses import dataclass
from typing import Any

import numpy as np

SHORT_TOP, LONG_TOP, SHORT_OUTWEAR, LONG_OUTWEAR, VEST, SLING, SHORTS, TROUSERS, SKIRT = range(1, 10)
SHORT_DRESS, LONG_DRESS, VEST_DRESS, SLING_DRESS = range(10, 14)
TOPS = (SHORT_TOP, LONG_TOP, VEST, SLING)
OUTWEAR = (SHORT_OUTWEAR, LONG_OUTWEAR)
BOTTOMS = (SHORTS, TROUSERS, SKIRT)
DRESSES = (SHORT_DRESS, LONG_DRESS, VEST_DRESS, SLING_DRESS)
LONG_SLEEVED = (LONG_TOP, LONG_OUTWEAR, LONG_DRESS)
SHORT_SLEEVED = (SHORT_TOP, SHORT_OUTWEAR, SHORT_DRESS)


# Neckline -> least and largest depth.
NECK_DEPTHS = {'crew': (6, 9), 'v': (12, 18), 'square': (8, 12), 'boat': (3.5, 5)}


@dataclass(frozen=True)
class Cut:
    """Measures of one garment; a measure that its category does not have is 0 or ''.

    Attributes:
        category_id: 1 to 13.
        neckline: 'crew', 'v', 'square' or 'boat'.
        neck_width: Half of the neckline's width at the shoulder.
        neck_depth: Depth of the front neckline below its ends.
        collar: '', 'ribbed', 'shirt', 'hood' or 'lapel'.
        strap: Width of a vest's or sling's strap.
        sleeve: Length of the sleeve divided by that of the arm; 1 at the wrist.
        sleeve_width: Width of the sleeve's end divided by that of the arm.
        cuff: Whether the sleeve ends in a band.
        ease: Distances of the cloth from the body at (chest, waist, hip), on each side.
        hem: y of the hem for a wearer with average legs.
        flare: How much wider the hem is than the hip, on each side.
        waist: y of the waistband of shorts, trousers and skirts, or of the waist seam of a dress (0 for none).
        opening: Half-widths of the front opening of outwear at its (top, bottom).
        fastening: '', 'buttons' or 'zip'.
        pocket: '', 'chest', 'front' or 'cargo'.
        folds: Kind of folds, a key of ``fabric.FOLD_KINDS``.
        fold_map: Number of the map among those of this kind of folds, 0 to 3.
        pleats: Number of pleat lines of a skirt.
    """

    category_id: int
    neckline: str = ''
    neck_width: float = 0.0
    neck_depth: float = 0.0
    collar: str = ''
    strap: float = 0.0
    sleeve: float = 0.0
    sleeve_width: float = 1.0
    cuff: bool = False
    ease: tuple[float, float, float] = (1.0, 1.0, 1.0)
    hem: float = 60.0
    flare: float = 0.0
    waist: float = 0.0
    opening: tuple[float, float] = (0.0, 0.0)
    fastening: str = ''
    pocket: str = ''
    folds: str = 'soft'
    fold_map: int = 0
    pleats: int = 0


def sample_cut(rng: np.random.Generator, category_id: int) -> Cut:
    """Samples the measures of a garment of a category."""
    common: dict[str, Any] = {'category_id': category_id, 'fold_map': int(rng.integers(4))}
    if category_id in BOTTOMS:
        return Cut(**common, **_bottom(rng, category_id))
    measures = _upper(rng, category_id)
    if category_id in DRESSES:
        measures |= _dress(rng)
    elif category_id in OUTWEAR:
        measures |= _outwear(rng, category_id)
    return Cut(**common, **measures)


def _upper(rng, category_id) -> dict:
    loose = rng.uniform(0.8, 5.5)
    neckline = str(rng.choice(['crew', 'v', 'square', 'boat'], p=[0.5, 0.25, 0.1, 0.15]))
    measures = {
        'neckline': neckline,
        'neck_width': float(rng.uniform(9.5, 12.5) if neckline in ('boat', 'square') else rng.uniform(7, 9.5)),
        'neck_depth': float(rng.uniform(*NECK_DEPTHS[neckline])),
        'collar': str(rng.choice(['', 'ribbed', 'shirt'], p=[0.3, 0.5, 0.2])) if neckline in ('crew', 'v') else '',
        'ease': (float(loose), float(loose * rng.uniform(0.6, 1.6)), float(rng.uniform(1.0, 4.5))),
        'hem': float(rng.uniform(50, 68)),
        'flare': float(rng.uniform(-0.5, 3)),
        'folds': str(rng.choice(['soft', 'crumpled'])),
        'pocket': 'chest' if rng.random() < 0.2 else '',
    }
    if category_id in SHORT_SLEEVED:
        measures |= {'sleeve': float(rng.uniform(0.26, 0.5)), 'sleeve_width': float(rng.uniform(1.5, 2.4))}
    elif category_id in LONG_SLEEVED:
        measures |= {
            'sleeve': float(rng.uniform(0.8, 0.99)),
            'sleeve_width': float(rng.uniform(1.35, 2.4)),
            'cuff': bool(rng.random() < 0.6),
        }
    elif category_id in (VEST, VEST_DRESS):
        measures |= {'strap': float(rng.uniform(3, 7)), 'collar': '', 'neck_depth': float(rng.uniform(8, 15))}
    else:
        measures |= {
            'strap': float(rng.uniform(0.7, 1.8)),
            'neck_width': float(rng.uniform(8.5, 11.5)),
            'neck_depth': float(rng.uniform(2, 6)),
            'collar': '',
            'pocket': '',
        }
    return measures


def _dress(rng) -> dict:
    return {
        'hem': float(rng.uniform(88, 138)),
        'flare': float(rng.uniform(1, 16)),
        'waist': float(rng.uniform(34, 44)) if rng.random() < 0.75 else 0.0,
        'ease': (float(rng.uniform(0.5, 3)), float(rng.uniform(0.8, 4)), float(rng.uniform(2, 6))),
        'folds': str(rng.choice(['draped', 'soft'], p=[0.7, 0.3])),
        'pocket': '',
    }


def _outwear(rng, category_id) -> dict:
    top = float(rng.uniform(1.0, 5.0))
    long = category_id == LONG_OUTWEAR and rng.random() < 0.4
    return {
        'neckline': 'v',
        'neck_width': float(rng.uniform(7.5, 9.5)),
        'neck_depth': float(rng.uniform(7, 22)),
        'collar': str(rng.choice(['shirt', 'lapel', 'hood', 'ribbed'])),
        'ease': tuple(float(value) for value in rng.uniform(3, 7, 3)),
        'hem': float(rng.uniform(80, 118) if long else rng.uniform(54, 72)),
        'opening': (top, top + float(rng.uniform(0, 6))),
        'fastening': str(rng.choice(['buttons', 'zip'])),
        'pocket': str(rng.choice(['', 'front', 'chest'])),
    }


def _bottom(rng, category_id) -> dict:
    measures = {
        'waist': float(rng.uniform(39, 46)),
        'pocket': str(rng.choice(['', 'front', 'cargo'])) if category_id != SKIRT else '',
        'folds': 'soft',
        'ease': (0.0, 0.6, float(rng.uniform(0.8, 3))),
    }
    if category_id == SHORTS:
        return measures | {
            'hem': float(rng.uniform(78, 98)),
            'sleeve_width': float(rng.uniform(1.1, 1.7)),
            'cuff': bool(rng.random() < 0.4),
        }
    if category_id == TROUSERS:
        return measures | {
            'hem': float(rng.uniform(128, 149)),
            'sleeve_width': float(rng.uniform(1.05, 2.3)),
            'cuff': bool(rng.random() < 0.25),
        }
    pleats = int(rng.choice([0, 0, 7, 11, 15]))
    return measures | {
        'hem': float(rng.uniform(80, 132)),
        'flare': float(rng.uniform(-1, 17)),
        'pleats': pleats,
        'folds': 'draped',
        'pocket': '',
    }
