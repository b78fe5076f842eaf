"""A time of day that jumps, forwards and back, under a load."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from resight.client.connection import connect
from tests.faults.evidence import Site
from tests.faults.load import IN_FLIGHT, Load, Numbers

DAY = 86_400


@pytest.fixture(scope="session")
def shifted_clock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library that shifts a process's time of day."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    library = tmp_path_factory.mktemp("clock") / "clock.so"
    source = Path(__file__).with_name("clock.c")
    command = [compiler, "-O2", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"]
    subprocess.run(command, check=True)
    return library


def test_a_clock_that_jumps_loses_nothing_and_stops_nothing(
    start_service: Callable[..., Any],
    catalog: dict[str, str],
    site: Site,
    shifted_clock: Path,
    tmp_path: Path,
) -> None:
    hand = tmp_path / "hand"
    hand.write_text("0")
    shifted = {"LD_PRELOAD": str(shifted_clock), "RESIGHT_TEST_CLOCK": str(hand)}
    numbers = Numbers()
    with (
        start_service(site.data, **catalog, **shifted) as service,
        connect(service.grpc) as connection,
    ):
        load = Load(site, connection, numbers, seed=3)
        load.register_cameras()
        load.start()
        for jump in (0, -DAY, 30 * DAY, -300 * DAY, 0):
            hand.write_text(str(jump))
            time.sleep(0.7)
            before = len(site.told.stored)
            deadline = time.monotonic() + 240
            # More than were on their way, so that some came after the jump.
            while len(site.told.stored) <= before + 2 * IN_FLIGHT:
                told = f"nothing is stored any more after a jump to {jump} s"
                assert time.monotonic() < deadline, told
                time.sleep(0.05)
        load.end()
        assert not load.refused
        site.check(connection)
        assert "Traceback" not in service.log.read_text()
    stamps = created(site)
    assert max(stamps) - min(stamps) > 300 * DAY * 1_000_000, "the clock did not jump"
    hand.write_text(str(-10 * DAY))
    # What the refusal of such a start says is in tests/e2e/test_bad_starts.py.
    accepted = {"RESIGHT_LIMITS__MAX_CLOCK_SKEW_SECONDS": str(11 * DAY)}
    with (
        start_service(site.data, **catalog, **shifted, **accepted) as service,
        connect(service.grpc) as connection,
    ):
        site.check(connection)


def created(site: Site) -> list[int]:
    """When the service says that crops came, microseconds."""
    return site.numbers("SELECT create_time FROM crops")
