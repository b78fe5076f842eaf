"""Write every board into ``deploy/grafana``, or the folder given."""

from __future__ import annotations

import sys
from pathlib import Path

from tools.boards import BOARDS
from tools.boards.drawing import text

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "deploy/grafana")
for one in BOARDS:
    (folder / f"{one.uid}.json").write_text(text(one))
