"""Alembic's environment; its versions are the only way the catalog's schema changes."""
