"""Commands of the service half."""
