"""Input data: by name, as images, artificial, and from files checked by hash."""
