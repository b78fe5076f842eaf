"""The whole path on one machine: simulate, adapt, export, serve, ingest, query, show."""
