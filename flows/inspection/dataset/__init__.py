"""Images and labels: sources, checks, manifest, splits, cache."""
