"""The sample line's pictures: a turned flange, its defects, the light and the camera."""
