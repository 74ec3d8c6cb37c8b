"""The colours that mmdf2 draws with: the one place for them. Imports nothing."""

RGB = tuple[int, int, int]

# One colour for each category, in the table's order. Neighbours in the table (short and long sleeve of one garment) and
# garments worn together (a top and trousers) differ in hue and in lightness, also to a red-green colour-blind eye.
PALETTE: tuple[RGB, ...] = (
    (64, 156, 255),  # short sleeve top
    (0, 84, 190),  # long sleeve top
    (255, 138, 28),  # short sleeve outwear
    (176, 66, 12),  # long sleeve outwear
    (26, 204, 186),  # vest
    (0, 126, 116),  # sling
    (255, 214, 10),  # shorts
    (196, 140, 0),  # trousers
    (124, 206, 44),  # skirt
    (255, 104, 176),  # short sleeve dress
    (184, 22, 104),  # long sleeve dress
    (190, 132, 255),  # vest dress
    (108, 44, 190),  # sling dress
)

RIGHT: RGB = (24, 170, 70)
WRONG: RGB = (220, 44, 44)
NEUTRAL: RGB = (110, 110, 110)
