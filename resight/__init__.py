"""resight: what the offline half (adapt) and the online half (service) share."""

import os
from importlib.metadata import version

__all__ = ["__version__"]

__version__ = version("resight")

# ONNX Runtime sends usage data to its maker unless it is told not to before it is loaded, and keeps
# a device id in the home directory.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
