"""TensorRT engines: built for one kind of GPU, kept in the bundle, checked on a card."""
