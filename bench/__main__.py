"""``python -m bench NAME [ARGUMENTS]`` runs ``bench/NAME.py``; ``python -m bench`` lists them."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from pathlib import Path

from bench.machine import describe

_NOT_BENCHES = {
    "__main__",
    "experiment",
    "lifecycle_load",
    "machine",
    "serving",
    "soak_callers",
    "synthetic",
}


def _names() -> list[str]:
    found = (module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)]))
    return sorted(name for name in found if name not in _NOT_BENCHES)


def main() -> int:
    """Run the bench that is named first on the command line."""
    if len(sys.argv) > 1:
        sys.argv[1] = sys.argv[1].replace("-", "_")
    if len(sys.argv) < 2 or sys.argv[1] not in _names():
        print(f"usage: python -m bench NAME [ARGUMENTS]; NAME is one of {', '.join(_names())}")
        return 0 if len(sys.argv) < 2 else 2
    print(describe(), file=sys.stderr)
    result = importlib.import_module(f"bench.{sys.argv[1]}").main(sys.argv[2:])
    return int(result or 0)


if __name__ == "__main__":
    sys.exit(main())
