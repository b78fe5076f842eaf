"""Mutated images and decompression bombs, in processes of bounded memory."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.fuzz.conftest import TIMES, count
from tests.fuzz.decoding import bombs, seeds

ROOT = Path(__file__).resolve().parents[2]
IMAGES = 6000
PROCESSES = 2


def test_mutated_images() -> None:
    first = 1 if TIMES == 1 else secrets.randbits(30)

    def run(number: int) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [
                sys.executable, "-m", "tests.fuzz.decoding", str(first + number),
                str(IMAGES * TIMES // PROCESSES),
            ],
            cwd=ROOT, capture_output=True, text=True, timeout=240 * TIMES, check=False,
        )  # fmt: skip

    with ThreadPoolExecutor(PROCESSES) as pool:
        done = list(pool.map(run, range(PROCESSES)))
    for number, process in enumerate(done):
        where = f"seed {first + number}: {process.stderr[-2000:]}"
        assert process.returncode == 0, where
        told = json.loads(process.stdout)
        assert told["unknown"] == [], where
        # Mutation that nothing survives, or that everything does, would try nothing.
        assert told["outcomes"]["decoded"] > IMAGES * TIMES // PROCESSES / 50, told
        assert told["outcomes"]["UNDECODABLE_IMAGE"] > IMAGES * TIMES // PROCESSES / 5, told
        assert told["slowest"] < 60, told
        assert told["peak_mib"] < 2048, told
        for outcome, images in told["outcomes"].items():
            count(f"images, {outcome.lower().replace('_', ' ')}", images)


def test_what_is_mutated_can_be_decoded() -> None:
    from resight.crops import prepare
    from tests.fuzz.decoding import PREPROCESSING

    for name, data in seeds().items():
        assert prepare(data, PREPROCESSING).shape == (64, 32, 3), name
    assert max(map(len, bombs().values())) < 20 * 2**20
