"""Versions of the wardrobe: what each of them draws, and where its random numbers come from.

Version 1 is the first drawing. Version 2 adds what photographs have and version 1 lacks. Every addition takes its
random numbers from a stream of its own, so that leaving one out changes nothing else, and version 1 stays what it was,
byte for byte. A published version is never changed, because figures were measured on it; a change is a new version.
"""

from dataclasses import dataclass

import numpy as np

ADDITIONS = {
    'bodies': 'more kinds of skin, hair, build, arms and legs, with hats, glasses and phones before the face',
    'company': 'a second person, whose clothes are annotated as well',
    'cloth': 'weaves, knits, more sizes of prints, common colours, and translucent cloth',
    'drapery': 'deep and fine folds, and light that comes from any side',
    'places': 'cluttered rooms and streets, mirrors, hangers, beds and floors',
    'camera': 'perspective, bent bodies, and close-ups without a face',
    'light': 'white balance, exposure, contrast, light from one side, and flash',
    'photo': 'motion blur, lost resolution, and JPEG of low quality',
}
VERSIONS = {1: (), 2: tuple(ADDITIONS)}
# Entry of a seed that tells the additions' random numbers from those of version 1, which has no such entry.
_STREAM = 7_001


@dataclass(frozen=True)
class Version:
    """How a wardrobe is drawn.

    Attributes:
        number: One of ``VERSIONS``.
        without: Additions of the version that are left out, to measure what they do.
        backgrounds: Folder of photos that replace drawn backgrounds of users' photos, or '' for none.
        textures: Folder of photos of cloth, from which textures are cut, or '' for none.

    Raises:
        ValueError: There is no such version, or it has no such addition.
    """

    number: int = 2
    without: tuple[str, ...] = ()
    backgrounds: str = ''
    textures: str = ''

    def __post_init__(self):
        if self.number not in VERSIONS:
            raise ValueError(f'version must be one of {sorted(VERSIONS)}, got {self.number!r}')
        own = VERSIONS[self.number]
        for name in self.without:
            if name not in own:
                raise ValueError(f'version {self.number} of the wardrobe has the additions {own}, but not {name!r}')
        for name, addition in (('backgrounds', 'places'), ('textures', 'cloth')):
            if getattr(self, name) and not self.has(addition):
                raise ValueError(
                    f'a folder of {name} needs the addition {addition!r}, which this wardrobe does not have'
                )

    def has(self, addition: str) -> bool:
        """Whether wardrobes are drawn with an addition."""
        return addition in VERSIONS[self.number] and addition not in self.without

    def generator(self, seed: tuple[int, ...], addition: str) -> np.random.Generator:
        """Makes the random generator of an addition for what ``seed`` stands for."""
        return np.random.default_rng([*seed, _STREAM, list(ADDITIONS).index(addition)])


CURRENT_VERSION = Version(2)
