"""Adaptation methods: strategies over one training engine."""
