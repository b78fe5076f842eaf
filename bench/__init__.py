"""How every published figure was made: ``python -m bench NAME``."""
