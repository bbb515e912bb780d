"""How messages leave a device and come in: files, MQTT, the Greengrass nucleus."""
