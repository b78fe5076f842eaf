"""Who is let in, to do what."""
