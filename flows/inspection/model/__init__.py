"""Backbones, training, and the trained classifier."""
