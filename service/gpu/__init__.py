"""A gallery's vectors on a GPU in half precision, answers as the built-in index gives them.

Never run on a GPU yet; ``tests/gpu`` is what the first card will run.
"""
