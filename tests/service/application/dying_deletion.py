"""A process that deletes a crop and is killed at one point of it: ARGV is the data directory, the
database, the crop and the point.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import signal
import sys
from pathlib import Path

from sqlalchemy import event

from service.application.application import Application
from service.erasure_ledger import ErasureLedger
from service.settings import load_settings

spec = importlib.util.spec_from_file_location("fixtures", Path(__file__).parent / "conftest.py")
assert spec is not None
assert spec.loader is not None
fixtures = importlib.util.module_from_spec(spec)
spec.loader.exec_module(fixtures)

data, url, crop_id, point = sys.argv[1:]


def die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


async def main() -> None:
    settings = load_settings({"data_dir": data, "database_url": url})
    application = await Application.open(settings, embedder=fixtures.HashEmbedder())
    append = ErasureLedger.append
    if point == "before the ledger":
        ErasureLedger.append = die  # type: ignore[method-assign]
    elif point == "half a line":

        def half(ledger: ErasureLedger, entries: object) -> None:
            os.write(ledger._handle, b"default 01a1fff9cd687450b527")
            die()

        ErasureLedger.append = half  # type: ignore[assignment,method-assign]
    elif point == "before the commit":

        def whole(ledger: ErasureLedger, entries: object) -> None:
            append(ledger, entries)  # type: ignore[arg-type]
            die()

        ErasureLedger.append = whole  # type: ignore[assignment,method-assign]
    elif point == "after the commit":
        engine = application._catalog.writer._engine
        event.listen(engine.pool, "checkin", die)
    await application.crops.delete("", crop_id)


asyncio.run(main())
