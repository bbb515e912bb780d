"""Opens the fleet that a line's settings name."""

from inspection.fleet.interface import Fleet
from inspection.settings import Settings


def open_fleet(settings: Settings) -> Fleet:
    """The fleet of a line.

    Raises:
        RolloutError: it cannot be reached.
    """
    if settings.fleet.backend == "greengrass":
        from inspection.fleet.greengrass.fleet import GreengrassFleet

        return GreengrassFleet(settings)
    from inspection.fleet.local.fleet import LocalFleet

    return LocalFleet(settings)
