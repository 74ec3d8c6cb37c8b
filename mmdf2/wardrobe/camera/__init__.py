"""The camera: lenses, light, and what a photograph loses."""
