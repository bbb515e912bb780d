"""The spool: results and kept images on the device's disk until somebody else has them."""
