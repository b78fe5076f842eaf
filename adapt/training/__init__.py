"""The training engine: configuration, loop, checkpoints."""
