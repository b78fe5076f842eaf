"""A real, guarded service under a mixed load for a long time: does anything grow that should not?

    python -m bench soak --minutes 20
    python -m bench soak --minutes 480 --bundle BUNDLE --output soak.json

`resight serve` on SQLite, with keys and tokens, limits and audit on. Its callers
(``bench.soak_callers``) search by image and stored crop, ingest, delete and erase, come with wrong
keys from made-up addresses, with expired tokens, cancel, hang up in the middle and verify the
audit; tokens are about ``--principals`` subjects. ``/metrics`` is scraped at every sample, and
`resight audit report` is written now and then. Every ``--sample`` seconds: resident memory,
threads, open files, tasks and Python objects of the service, the sizes of its files, the series
that it exports. Prints JSON: what was asked and what came of it, samples, and for each measure what
it was after a fifth, in the middle and at the end, with the growth an hour over the second half.

Entries of the audit are kept for good, so the catalog grows with the calls: by how much an entry is
told beside. Tasks and objects are counted inside the service's process, by ``--serve``.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from bench.lifecycle_load import encoder_archive
from bench.serving import RESIGHT, cpu_seconds
from bench.soak_callers import AUDIENCE, CALLERS, ISSUER, KEY_ID, Caller, Site, register

# Calls that ended with a fault of the service: there should be none.
_FAULTS = r'^resight_requests_total\{[^}]*code="(?:INTERNAL|UNKNOWN|DATA_LOSS|5..)"[^}]*\} (.+)$'
SCOPES = ("admin", "search", "ingest", "audit")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the load and print one JSON object."""
    arguments = _arguments(argv)
    if arguments.serve:
        _serve(arguments.serve, arguments.rest)
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as made:
        folder = Path(made)
        bundle = arguments.bundle or encoder_archive(folder / "bundle", 1)
        data = folder / "data"
        environment, signer, key = _guarded(folder, data)
        with _serving(bundle, data, environment, folder / "told.json") as (ready, pid):
            site = Site(
                ready["grpc"], ready["rest"], key, signer, arguments.principals, arguments.crops
            )
            report = _soaked(site, arguments, pid, data, folder)
    text = json.dumps(report, indent=1)
    print(text)
    if arguments.output:
        arguments.output.write_text(text)


def _soaked(
    site: Site, arguments: argparse.Namespace, pid: int, data: Path, folder: Path
) -> dict[str, Any]:
    with site.channel() as channel:
        register(site, channel)
    stop, outcomes = threading.Event(), Counter[str]()
    threads = [
        threading.Thread(target=_caller, args=(site, name, what, pause, seed, stop, outcomes))
        for name, (what, count, pause) in CALLERS.items()
        for seed in range(count)
    ]
    for thread in threads:
        thread.start()
    samples: list[dict[str, float]] = []
    begun = time.monotonic()
    reports = 0
    try:
        while (elapsed := time.monotonic() - begun) < 60 * arguments.minutes:
            stop.wait(arguments.sample)
            found = _sample(site, pid, data, folder / "told.json")
            samples.append({"minutes": round(elapsed / 60, 2), **found})
            print(json.dumps(samples[-1]), file=sys.stderr, flush=True)
            if elapsed > 60 * arguments.report_minutes * (reports + 1):
                reports += 1
                done = _report(data, folder)
                outcomes[f"audit report: {'OK' if done == 0 else f'exit {done}'}"] += 1
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    return {
        "minutes": arguments.minutes,
        "principals": arguments.principals,
        "crops": arguments.crops,
        "calls": sum(outcomes.values()),
        "outcomes": dict(sorted(outcomes.items())),
        "service_cpu_seconds": round(cpu_seconds(pid), 1),
        "measures": _measures(samples),
        "samples": samples,
    }


def _caller(
    site: Site,
    name: str,
    what: Caller,
    pause: float,
    seed: int,
    stop: threading.Event,
    outcomes: Counter[str],
) -> None:
    rng = random.Random(f"{name} {seed}")
    with site.channel() as channel:
        while not stop.wait(pause):
            try:
                came = what(site, channel, rng)
            except grpc.RpcError as error:
                came = str(error.code().name)
            except OSError as error:
                came = type(error).__name__
            outcomes[f"{name}: {came}"] += 1


def _sample(site: Site, pid: int, data: Path, told: Path) -> dict[str, float]:
    status = dict(
        line.split(":", 1)
        for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        if line.startswith(("VmRSS", "Threads"))
    )
    headers = {"authorization": f"Bearer {site.key}"}
    text = httpx.get(f"http://{site.rest}/metrics", headers=headers, timeout=60).text
    values = dict(re.findall(r"^(resight_\w+)(?:\{\})? ([\d.e+-]+)$", text, re.MULTILINE))
    catalog = data / "catalog.sqlite"
    files = [path for path in data.rglob("*") if path.is_file()]
    try:
        inside = json.loads(told.read_text())
    except (OSError, ValueError):
        inside = {}
    return {
        "rss_mb": round(int(status["VmRSS"].split()[0]) / 1024, 1),
        "threads": int(status["Threads"]),
        "open_files": len(os.listdir(f"/proc/{pid}/fd")),
        "series": sum(1 for line in text.splitlines() if line and line[0] != "#"),
        "faults": sum(float(count) for count in re.findall(_FAULTS, text, re.MULTILINE)),
        "audit_entries": float(values.get("resight_audit_entries_total", 0)),
        "crops": len(site.stored),
        "catalog_mb": _megabytes([catalog]),
        "wal_mb": _megabytes([catalog.with_name(catalog.name + "-wal")]),
        "files": len(files),
        "other_files_mb": _megabytes([path for path in files if catalog.name not in path.name]),
        **inside,
    }


def _megabytes(paths: Sequence[Path]) -> float:
    total = 0
    for path in paths:
        try:
            total += path.stat().st_size
        except FileNotFoundError:
            continue
    return round(total / 1e6, 3)


def _measures(samples: Sequence[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Each after a fifth, in the middle, at the end, at most, and its slope after the middle."""
    if len(samples) < 5:
        return {}
    late = samples[len(samples) // 2 :]
    found = {}
    for name in samples[-1]:
        if name == "minutes":
            continue
        series = [sample.get(name, 0.0) for sample in samples]
        hours = [sample["minutes"] / 60 for sample in late]
        ends = series[len(samples) // 2 :]
        found[name] = {
            "after_a_fifth": series[len(series) // 5],
            "middle": series[len(series) // 2],
            "end": series[-1],
            "most": max(series),
            "per_hour": round(statistics.linear_regression(hours, ends).slope, 2),
        }
    return found


def _report(data: Path, folder: Path) -> int:
    command = [str(RESIGHT), "audit", "report", "--data", str(data)]
    output = str(folder / "report.html")
    done = subprocess.run([*command, "--output", output], capture_output=True, check=False)
    if done.returncode:
        print(done.stderr.decode(), file=sys.stderr)
    return done.returncode


def _guarded(folder: Path, data: Path) -> tuple[dict[str, str], str, str]:
    """Settings of a service that asks for keys, a key that signs tokens, an administrator's key."""
    private = ec.generate_private_key(ec.SECP256R1())
    public = json.loads(ECAlgorithm.to_jwk(private.public_key()))
    jwks = folder / "jwks.json"
    jwks.write_text(json.dumps({"keys": [public | {"kid": KEY_ID, "alg": "ES256", "use": "sig"}]}))
    signer = private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()
    key = folder / "admin.key"
    scopes = [word for scope in SCOPES for word in ("--scope", scope)]
    command = [str(RESIGHT), "keys", "create", "soak", *scopes, "--days", "30"]
    command += ["--data", str(data), "--output", str(key)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    environment = {
        "RESIGHT_ACCESS__AUTHENTICATION": "on",
        "RESIGHT_ACCESS__JWKS_FILE": str(jwks),
        "RESIGHT_ACCESS__JWT_ISSUER": ISSUER,
        "RESIGHT_ACCESS__JWT_AUDIENCE": AUDIENCE,
        "RESIGHT_ACCESS__REQUESTS_PER_MINUTE": "1000000",
        "RESIGHT_AUDIT__CHECKPOINT_SECONDS": "20",
        "RESIGHT_LOGS__LEVEL": "warning",
    }
    return environment, signer, key.read_text().strip()


@contextmanager
def _serving(
    bundle: Path, data: Path, environment: dict[str, str], told: Path
) -> Iterator[tuple[dict[str, str], int]]:
    command = [
        sys.executable, "-m", "bench.soak", "--serve", str(told), "--",
        "serve", "--bundle", str(bundle), "--data", str(data),
        "--grpc-port", "0", "--rest-port", "0",
    ]  # fmt: skip
    with (data.parent / "service.log").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, text=True, env=os.environ | environment
        )
    try:
        line = process.stdout.readline() if process.stdout else ""
        ready = dict(part.split("=", 1) for part in line.split()[1:])
        if "grpc" not in ready:
            raise RuntimeError((data.parent / "service.log").read_text())
        yield ready, process.pid
    finally:
        process.terminate()
        process.wait(60)
        lines = (data.parent / "service.log").read_text().splitlines()
        last = [line[:300] for line in lines[-5:]]
        print(f"the service logged {len(lines)} lines, at last:", *last, sep="\n", file=sys.stderr)


def _serve(told: Path, command: Sequence[str]) -> None:
    """Be the service, and write how many tasks and objects there are, now and then."""
    from resight import cli
    from service.commands import serve

    loops: list[asyncio.AbstractEventLoop] = []
    made = serve._loop_factory()

    def factory() -> asyncio.AbstractEventLoop:
        loops.append(made())
        return loops[-1]

    def tell() -> None:
        while True:
            time.sleep(10)
            counted = {
                "tasks": sum(len(asyncio.all_tasks(loop)) for loop in loops),
                "objects": len(gc.get_objects()),
            }
            told.with_suffix(".new").write_text(json.dumps(counted))
            told.with_suffix(".new").replace(told)

    serve._loop_factory = lambda: factory
    threading.Thread(target=tell, daemon=True).start()
    sys.argv = ["resight", *command]
    cli.main()


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--sample", type=float, default=15.0, help="seconds")
    parser.add_argument("--principals", type=int, default=5000)
    parser.add_argument("--crops", type=int, default=1000)
    parser.add_argument("--report-minutes", type=float, default=5.0)
    parser.add_argument("--bundle", type=Path, help="by default a small random encoder")
    parser.add_argument("--folder", type=Path, help="where the service's data lies meanwhile")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("rest", nargs="*", help=argparse.SUPPRESS)
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
