"""Wearers: bodies, what of them is seen, and what they carry."""
