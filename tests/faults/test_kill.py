"""kill -9 at random points under a load of ingest, deletes and searches, then the next start.

``RESIGHT_FAULT_KILLS`` sets how many kills (docs/durability.md tells of a hundred),
``RESIGHT_FAULT_SEED`` where they fall.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from resight.client.connection import connect
from tests.e2e.conftest import RESIGHT
from tests.faults.evidence import Site
from tests.faults.load import Load, Numbers

KILLS = int(os.environ.get("RESIGHT_FAULT_KILLS", "4"))
SEED = int(os.environ.get("RESIGHT_FAULT_SEED", "1"))


@pytest.mark.timeout(120 + 60 * KILLS)
def test_kill_9_at_random_points(
    start_service: Callable[..., Any],
    catalog: dict[str, str],
    tiny_bundle: Any,
    site: Site,
    capsys: pytest.CaptureFixture[str],
) -> None:
    chance, numbers = random.Random(SEED), Numbers()
    counts = dict.fromkeys(("under_load", "at_start", "at_end", "searches", "unannounced"), 0)
    for kill in range(KILLS):
        if kill % 5 == 4:
            counts["at_start"] += 1
            kill_a_start(site, tiny_bundle, catalog, chance.uniform(0.2, 2.0))
        with start_service(site.data, **catalog) as service, connect(service.grpc) as connection:
            # What the last kill left, before anything is written again.
            counts["unannounced"] += site.check(connection) if kill else 0
            load = Load(site, connection, numbers, seed=SEED * 1000 + kill)
            if not kill:
                load.register_cameras()
            load.start()
            time.sleep(chance.uniform(0.05, 1.5))
            if kill % 7 == 6:
                counts["at_end"] += 1
                service.process.send_signal(signal.SIGTERM)
                time.sleep(chance.uniform(0, 0.2))
            else:
                counts["under_load"] += 1
            service.stop(signal.SIGKILL)
            load.end()
            counts["searches"] += load.searches
    with start_service(site.data, **catalog) as service, connect(service.grpc) as connection:
        counts["unannounced"] += site.check(connection)
    told = site.told
    counts |= {
        "kills": KILLS + counts["at_start"],
        "sent": len(told.sent),
        "acknowledged": len(told.stored),
        "deleted": len(told.deleted),
        "deletes_cut_off": len(told.deleting - told.deleted),
    }
    assert told.stored, "nothing was ever acknowledged"
    with capsys.disabled():
        sys.stdout.write(f"\n{json.dumps(counts)}\n")


def kill_a_start(site: Site, bundle: Any, catalog: dict[str, str], seconds: float) -> None:
    """Start a service and kill it before, or just after, it is ready."""
    with (site.data / "service.log").open("a") as log:
        process = subprocess.Popen(
            [str(RESIGHT), "serve", "--bundle", str(bundle), "--data", str(site.data),
             "--grpc-port", "0", "--rest-port", "0"],
            stdout=subprocess.DEVNULL, stderr=log, env=os.environ | catalog,
        )  # fmt: skip
        time.sleep(seconds)
        process.kill()
        process.wait()
