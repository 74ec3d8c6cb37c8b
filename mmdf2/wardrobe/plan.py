"""Which identities a wardrobe has and which images are made of them; both depend only on the seed."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mmdf2.wardrobe.cloth.fabric import sample_fabric
from mmdf2.wardrobe.cloth.texture import sample_drapery, sample_texture, vary_fabric
from mmdf2.wardrobe.garments.cut import (
    BOTTOMS,
    DRESSES,
    LONG_OUTWEAR,
    LONG_TOP,
    OUTWEAR,
    SHORT_DRESS,
    SHORT_OUTWEAR,
    SHORT_TOP,
    SHORTS,
    SKIRT,
    SLING,
    TOPS,
    TROUSERS,
    VEST,
    sample_cut,
)
from mmdf2.wardrobe.scene import Clothing
from mmdf2.wardrobe.version import CURRENT_VERSION, Version

SPLITS = ('train', 'validation')
# The pair_ids of the splits never overlap, so no identity is in both, and no split depends on the size of the other.
FIRST_PAIR_ID = {'train': 1, 'validation': 1_000_001}
MAX_IDENTITIES = 1_000_000
# Main garments are dealt like cards from this deck, so that each 20 in a row hold every category.
DECK = (*range(1, 14), SHORT_TOP, LONG_TOP, SHORTS, TROUSERS, SKIRT, LONG_OUTWEAR, SHORT_DRESS)
TOP_SHARES = {SHORT_TOP: 0.5, LONG_TOP: 0.3, VEST: 0.13, SLING: 0.07}
BOTTOM_SHARES = {TROUSERS: 0.45, SHORTS: 0.28, SKIRT: 0.27}
OUTWEAR_SHARES = {LONG_OUTWEAR: 0.8, SHORT_OUTWEAR: 0.2}
STYLE_SHARES = (0.6, 0.25, 0.15)  # shares of cuts with one, two and three colours


@dataclass(frozen=True)
class Pair:
    """The items of one pair_id.

    Attributes:
        pair_id: The number of the pair.
        clothes: The main garment in each of its colours, then a second garment that is sold with it, if there is one.
        has_second: Whether there is a second garment.
    """

    pair_id: int
    clothes: tuple[Clothing, ...]
    has_second: bool


@dataclass(frozen=True)
class Shot:
    """One image to draw.

    Attributes:
        image_id: The number of the image, from 1.
        pair: The pair whose garments it shows.
        style: Style of the identity that it is made for.
        source: 'shop' or 'user'.
        seed: Seed of everything that is sampled for the image.
        version: How the wardrobe is drawn.
    """

    image_id: int
    pair: Pair
    style: int
    source: str
    seed: tuple[int, ...]
    version: Version = CURRENT_VERSION


def plan_pairs(split: str, identities: int, seed: int, version: Version = CURRENT_VERSION) -> list[Pair]:
    """Plans pairs that have exactly ``identities`` identities in total."""
    pairs: list[Pair] = []
    deck: list[int] = []
    left = identities
    while left:
        index = len(pairs)
        if not deck:
            deck = list(np.random.default_rng([seed, SPLITS.index(split), 1, index]).permutation(DECK))
        pair = _plan_pair(
            np.random.default_rng([seed, SPLITS.index(split), 2, index]),
            FIRST_PAIR_ID[split] + index,
            int(deck.pop()),
            left,
        )
        pair = replace(pair, clothes=enrich(version, (seed, SPLITS.index(split), 2, index), pair.clothes))
        pairs.append(pair)
        left -= len(pair.clothes)
    return pairs


def _plan_pair(rng, pair_id, category_id, left) -> Pair:
    cut = sample_cut(rng, category_id)
    colors = min(int(rng.choice(3, p=STYLE_SHARES)) + 1, left)
    clothes = [Clothing(cut, sample_fabric(rng, category_id not in BOTTOMS), style) for style in range(1, colors + 1)]
    has_second = category_id not in DRESSES and colors < left and rng.random() < 0.2
    if has_second:
        shares = TOP_SHARES if category_id in BOTTOMS else BOTTOM_SHARES
        clothes.append(sample_clothing(rng, shares, colors + 1))
    return Pair(pair_id, tuple(clothes), has_second)


def enrich(version: Version, seed: tuple[int, ...], clothes: Sequence[Clothing]) -> tuple[Clothing, ...]:
    """Adds to clothes of version 1 what later versions have; the same cut falls in the same way in every colour."""
    done = list(clothes)
    if version.has('cloth'):
        rng = version.generator(seed, 'cloth')
        for place, clothing in enumerate(done):
            taken = [other.fabric for other in done[:place]]
            fabric, texture = vary_fabric(rng, clothing.fabric, taken), sample_texture(rng, bool(version.textures))
            done[place] = replace(clothing, fabric=fabric, texture=texture)
    if version.has('drapery'):
        rng = version.generator(seed, 'drapery')
        falls = [sample_drapery(rng) for _ in done]
        for place, clothing in enumerate(done):
            first = next(number for number, other in enumerate(done) if other.cut == clothing.cut)
            done[place] = replace(clothing, drapery=falls[first])
    return tuple(done)


def plan_shots(
    split: str, pairs: list[Pair], images: tuple[int, int], seed: int, version: Version = CURRENT_VERSION
) -> list[Shot]:
    """Plans the images of a split; the shop images of a pair come before its user images.

    Args:
        split: 'train' or 'validation'.
        pairs: What ``plan_pairs`` returns.
        images: Numbers of (shop, user) images of each identity.
        seed: The wardrobe's seed.
        version: How the wardrobe is drawn.
    """
    shots: list[Shot] = []
    for pair in pairs:
        for source, count in zip(('shop', 'user'), images, strict=True):
            for clothing in pair.clothes:
                for number in range(count):
                    entropy = (seed, SPLITS.index(split), 3, pair.pair_id, clothing.style, source == 'user', number)
                    shot = Shot(
                        image_id=len(shots) + 1,
                        pair=pair,
                        style=clothing.style,
                        source=source,
                        seed=tuple(int(e) for e in entropy),
                        version=version,
                    )
                    shots.append(shot)
    return shots


def sample_clothing(rng: np.random.Generator, shares: dict[int, float], style: int = 0) -> Clothing:
    """Samples a garment, whose category is drawn by ``shares`` (category_id -> share)."""
    category_id = int(rng.choice(list(shares), p=np.array(list(shares.values())) / sum(shares.values())))
    plainness = 0.6 if category_id in BOTTOMS else 0.35
    return Clothing(sample_cut(rng, category_id), sample_fabric(rng, category_id not in BOTTOMS, plainness), style)


def sample_outfit(rng: np.random.Generator, shot: Shot, alone: bool) -> tuple[list[Clothing], int]:
    """Samples what is worn in an image.

    Args:
        rng: Random generator of the image.
        shot: The image.
        alone: Whether only the main garment is shown.

    Returns:
        The clothes from the skin outwards, and the place among them of the garment that the image is made for.
    """
    main = shot.pair.clothes[shot.style - 1]
    if alone:
        return [main], 0
    worn = {_slot(main): main}
    others = shot.pair.clothes[-1:] if shot.pair.has_second else ()
    if main in others:
        others = shot.pair.clothes[:1]
    for clothing in others:
        if rng.random() < 0.7:
            worn.setdefault(_slot(clothing), clothing)
    if 'dress' not in worn:
        if 'outwear' in worn and 'top' not in worn and 'bottom' not in worn and rng.random() < 0.15:
            worn['dress'] = sample_clothing(rng, dict.fromkeys(DRESSES, 1.0))
        else:
            worn.setdefault('top', sample_clothing(rng, TOP_SHARES))
            worn.setdefault('bottom', sample_clothing(rng, BOTTOM_SHARES))
    # A coat is added only if the main garment is a bottom, because it would hide any other.
    if _slot(main) == 'bottom' and rng.random() < 0.15:
        worn['outwear'] = sample_clothing(rng, OUTWEAR_SHARES)
    return _in_order(rng, worn, _slot(main))


def sample_company(rng: np.random.Generator) -> list[Clothing]:
    """Samples what somebody else on the image wears, from the skin outwards."""
    if rng.random() < 0.25:
        worn = {'dress': sample_clothing(rng, dict.fromkeys(DRESSES, 1.0))}
    else:
        worn = {'top': sample_clothing(rng, TOP_SHARES), 'bottom': sample_clothing(rng, BOTTOM_SHARES)}
    if rng.random() < 0.2:
        worn['outwear'] = sample_clothing(rng, OUTWEAR_SHARES)
    return _in_order(rng, worn, 'dress' if 'dress' in worn else 'top')[0]


def _in_order(rng, worn: dict[str, Clothing], place: str) -> tuple[list[Clothing], int]:
    """Puts clothes in the order from the skin outwards, and finds the place of one of them."""
    order = ['dress', 'bottom', 'top', 'outwear']
    if 'top' in worn and 'bottom' in worn and rng.random() < 0.3:
        order = ['dress', 'top', 'bottom', 'outwear']
        top = worn['top']
        worn['top'] = replace(top, cut=replace(top.cut, hem=worn['bottom'].cut.waist + 3.5, flare=0.0))
    if 'outwear' in worn:
        _fit_under(worn)
    order = [slot for slot in order if slot in worn]
    return [worn[slot] for slot in order], order.index(place)


def _fit_under(worn: dict[str, Clothing]) -> None:
    """Narrows the sleeves of what is worn under outwear, so that they fit into its sleeves."""
    widest = 0.8 * worn['outwear'].cut.sleeve_width
    for slot in ('top', 'dress'):
        if slot in worn and worn[slot].cut.sleeve_width > widest:
            worn[slot] = replace(worn[slot], cut=replace(worn[slot].cut, sleeve_width=max(widest, 1.05)))


def _slot(clothing: Clothing) -> str:
    for slot, category_ids in (('top', TOPS), ('bottom', BOTTOMS), ('outwear', OUTWEAR)):
        if clothing.cut.category_id in category_ids:
            return slot
    return 'dress'
