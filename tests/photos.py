"""Real photographs for the tests: those of the demo."""

from imgsvc.demo.samples import photo, photo_names

__all__ = ["photo", "photo_names"]
