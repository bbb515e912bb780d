"""Components for devices, and how they get there."""
