"""Brings a model to a fleet in stages, and back."""
