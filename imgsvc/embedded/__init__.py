"""Real servers out of Python wheels, for imgsvc dev, the demo and the tests."""
