"""A fleet of AWS IoT Greengrass v2 core devices."""
