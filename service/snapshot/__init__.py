"""Snapshots of everything a service stores: taken beside it, verified, restored."""
