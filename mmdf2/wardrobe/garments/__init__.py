"""Garments: the measures of a cut, and its outline and landmarks on a wearer."""
