"""A process that ingests and deletes until it is killed; it prints what was acknowledged."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from pathlib import Path

from service.application.application import Application
from service.application.ingest import IngestItem, Outcome
from service.domain.crop import Camera
from service.settings import load_settings

spec = importlib.util.spec_from_file_location("fixtures", Path(__file__).parent / "conftest.py")
assert spec is not None
assert spec.loader is not None
fixtures = importlib.util.module_from_spec(spec)
spec.loader.exec_module(fixtures)


def say(*words: str) -> None:
    sys.stdout.write(" ".join(words) + "\n")
    sys.stdout.flush()


async def main(data: Path, url: str, seed: str) -> None:
    settings = load_settings({"data_dir": data, "database_url": url, "catalog": {"max_group": 16}})
    application = await Application.open(settings, embedder=fixtures.HashEmbedder())
    await application.cameras.create("", Camera("c1"))
    say("ready")
    numbers = iter(range(10**9))

    async def worker() -> None:
        for number in numbers:
            image = f"{seed}-{number}"
            result = await application.ingest.submit(
                IngestItem("", "c1", fixtures.NOON, image.encode())
            )
            assert result.outcome is Outcome.ACCEPTED, result
            say("accepted", str(result.crop_id), image)
            if number % 7 == 0:
                say("deleting", str(result.crop_id), image)
                await application.crops.delete("", str(result.crop_id))
                say("deleted", str(result.crop_id), image)

    await asyncio.gather(*(worker() for _ in range(12)))


asyncio.run(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3]))
