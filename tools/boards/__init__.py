"""The Grafana boards of deploy/grafana; ``python -m tools.boards`` writes them.

A board is rows of panels, a panel its queries. Everything else (ids, places, the data source) is
the same for all and made in ``drawing``; the JSON is committed, so that nobody needs this to use
it.
"""

from __future__ import annotations

from tools.boards.adaptation import ADAPTATION
from tools.boards.gallery import GALLERY
from tools.boards.governance import GOVERNANCE
from tools.boards.service import SERVICE

__all__ = ["BOARDS"]

BOARDS = (SERVICE, GALLERY, ADAPTATION, GOVERNANCE)
