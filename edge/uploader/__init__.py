"""Sends kept images to a folder or to S3, in a process of its own that ends when nothing waits."""
