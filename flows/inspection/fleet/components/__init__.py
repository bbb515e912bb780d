"""What is published for devices: Python packages, the inspector, models."""
