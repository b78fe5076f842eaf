"""TLS of the listeners: certificate and key, checked, and read again when they change."""
