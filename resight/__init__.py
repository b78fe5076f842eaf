"""resight: what the offline half (adapt) and the online half (service) share."""

from importlib.metadata import version

__all__ = ["__version__"]

__version__ = version("resight")
