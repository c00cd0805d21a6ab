"""Bytes of an image in, smaller bytes out."""
