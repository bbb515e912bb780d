"""The device side: numpy, Pillow and a TFLite runtime are all that it needs."""
