"""Thresholds on what ships, and how good it is."""
