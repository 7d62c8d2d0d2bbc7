"""Which path goes where and why; builds the protected file system."""
