"""Catalog, indexes and images of a gallery compared with each other."""
