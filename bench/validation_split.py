"""The split that settings are chosen on: the last identities of a training folder.

Names are in the style of Market-1501. Of these identities, the first crop (by name) at each camera
is a query and every other crop is in the gallery; the adaptation sees all of them without their
names' identities::

    python -m bench validation_split --train MARKET/bounding_box_train --output VAL

writes ``VAL/query`` and ``VAL/gallery`` for ``resight adapt evaluate``. Test identities stay unseen
until the settings are fixed.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

_NAME = re.compile(r"(\d+)_c(\d+)")


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench validation_split", description=__doc__)
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--identities", type=int, default=100)
    options = parser.parse_args(argv)
    crops = [
        (match[1], match[2], path)
        for path in sorted(options.train.glob("*.jpg"))
        if (match := _NAME.match(path.name))
    ]
    chosen = set(sorted({who for who, _, _ in crops})[-options.identities :])
    seen: set[tuple[str, str]] = set()
    counts = {"query": 0, "gallery": 0}
    for who, where, path in crops:
        if who not in chosen:
            continue
        part = "gallery" if (who, where) in seen else "query"
        seen.add((who, where))
        counts[part] += 1
        (options.output / part).mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, options.output / part / path.name)
    print(json.dumps({"identities": len(chosen), **counts}))
    return 0


if __name__ == "__main__":
    import sys

    raise SystemExit(main(sys.argv[1:]))
