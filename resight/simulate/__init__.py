"""A procedural multi-camera crop generator with known identities.

Walking figures in varied clothes are drawn from a coarse three-dimensional body, seen by cameras
that differ in colour, sharpness, place and angle, and cut out by an imperfect detector. It feeds
the demo, the tests and runs at scale; it is no substitute for real crops (docs/simulate.md).
"""
