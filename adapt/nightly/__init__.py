"""The night: new crops from a running service to a registered candidate, or to nothing."""
