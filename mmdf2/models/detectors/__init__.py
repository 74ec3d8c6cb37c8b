"""Detectors."""

from .match_rcnn import MatchRCNN

__all__ = ['MatchRCNN']
