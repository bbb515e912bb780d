"""The spool: results and kept images on the device's disk until somebody else has them."""

from edge.spool.images import ImageQueue, KeptImage, WaitingImage
from edge.spool.records import FoldedCounts, SpoolFigures, Ticket
from edge.spool.settings import SpoolSettings
from edge.spool.spool import Spool

__all__ = [
    "FoldedCounts",
    "ImageQueue",
    "KeptImage",
    "Spool",
    "SpoolFigures",
    "SpoolSettings",
    "Ticket",
    "WaitingImage",
]
