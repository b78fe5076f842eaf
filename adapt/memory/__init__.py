"""What the loss contrasts against."""
