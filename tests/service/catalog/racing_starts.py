"""A process whose threads try to take the lease of each gallery; it prints what each was told."""

from __future__ import annotations

import sys
import threading
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from resight.errors import FailedPrecondition
from service.catalog import runs
from service.catalog.engine import open_engine

url, name, threads, galleries = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
lines: list[str] = []


def attempt(thread: int) -> None:
    engine = open_engine(url, pool_size=1, writer=True)
    for gallery_row in range(1, galleries + 1):
        holder = f"{name}-{thread}"
        try:
            with engine.begin() as connection:
                runs.start_run(
                    connection,
                    gallery_row,
                    run_id=uuid4(),
                    token_digest=b"x" * 32,
                    holder=holder,
                    lease=timedelta(seconds=600),
                    now=datetime.now(UTC),
                )
            lines.append(f"won {gallery_row} {holder}")
        except FailedPrecondition as error:
            lines.append(f"{error.reason} {gallery_row} {holder}")
    engine.dispose()


sys.stdout.write("ready\n")
sys.stdout.flush()
sys.stdin.readline()
workers = [threading.Thread(target=attempt, args=(thread,)) for thread in range(threads)]
for worker in workers:
    worker.start()
for worker in workers:
    worker.join()
sys.stdout.write("\n".join(lines) + "\n")
