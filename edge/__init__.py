"""The device side: numpy, Pillow and a TFLite runtime are all that it needs."""

__version__ = "0.1.0"
