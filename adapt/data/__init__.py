"""Crop cache, sampling and augmentation."""
