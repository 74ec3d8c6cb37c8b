"""Galleries: shop items that are searched by the learned similarity of the match head.

``similarity`` and ``reduction`` are the algebra, ``items`` what an item is, ``gallery`` the interface; each kind of
gallery has its module. Nothing is imported here: a kind loads its library when it is used.
"""
