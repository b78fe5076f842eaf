"""`resight …` of a release to come: this code, and the migrations in NEXT_MIGRATIONS."""

from __future__ import annotations

import os
from pathlib import Path

from alembic.config import Config
from sqlalchemy import Connection

from resight.cli import main
from service.catalog import schema

_ours = schema._config
_versions = Path(schema.__file__).with_name("migrations") / "versions"


def _extended(connection: Connection | None = None) -> Config:
    made = _ours(connection)
    folders = (str(_versions), os.environ["NEXT_MIGRATIONS"])
    made.set_main_option("version_locations", os.pathsep.join(folders))
    return made


schema._config = _extended

if __name__ == "__main__":
    main()
