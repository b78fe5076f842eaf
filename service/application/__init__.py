"""What callers can ask for, free of transports: each use case is a class with async methods."""
