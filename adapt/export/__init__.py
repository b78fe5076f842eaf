"""From a trained embedder to the bundle that serves it, and to fast features on the way."""
