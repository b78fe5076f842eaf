"""A thin client of a running service; integrators use the stubs of ``resight.v1`` directly."""

from __future__ import annotations

import os

# gRPC would write a line of its own about every handshake that fails, on both sides; ours are JSON
# lines, or one line for people. Read once, when the library is loaded.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
