"""The colours that say what is right and what is wrong; those of the categories are in ``mmdf2.categories``."""

from mmdf2.categories import RGB

RIGHT: RGB = (24, 170, 70)
WRONG: RGB = (220, 44, 44)
NEUTRAL: RGB = (110, 110, 110)
