"""Devices on this machine: folders with processes that run the real components."""
