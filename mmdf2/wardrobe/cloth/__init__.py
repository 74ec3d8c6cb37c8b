"""Cloth: colours, prints, weaves and how it falls."""
