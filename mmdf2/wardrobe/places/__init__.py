"""Places: what is behind the wearers, or under what nobody wears."""
