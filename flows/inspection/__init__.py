"""The library behind Lineside's flows."""
