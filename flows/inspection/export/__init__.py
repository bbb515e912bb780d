"""From the trained model to a verified package for the device."""
