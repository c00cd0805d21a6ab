"""The calls about requests: where they stand, what became of their images, and changing them."""
