"""imgsvc: fetch, compress, store and report images in batches."""

__version__ = "0.1.0"
