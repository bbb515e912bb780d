"""Formats of labelled image sets, one module each."""
