"""A program in the place of ``resight serve`` on a page: it returns when the service is ready, and
leaves it running, as if it had a terminal of its own. A service that is started on a port of
another one ends that one first: its reader pressed Ctrl-C there.

    python service_terminal.py FOLDER RESIGHT serve …
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

__all__ = ["stop_services"]

READY_SECONDS = 120
END_SECONDS = 60


def stop_services(folder: Path, port: str | None = None) -> list[str]:
    """SIGTERM to the services of a folder, or to that of one port, and wait for their end.

    Returns:
        Of each that did not end by itself with code 0, what is wrong and what it logged.
    """
    wrong: list[str] = []
    for file in sorted(folder.glob("*.pid")):
        pid, of = file.read_text().split()
        if port is not None and port != of:
            continue
        with suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGTERM)
        if not _ended(int(pid), END_SECONDS):
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
            _ended(int(pid), END_SECONDS)
            wrong.append(f"a service had to be killed:\n{file.with_suffix('.err').read_text()}")
        file.unlink()
    return wrong


def _start(folder: Path, command: list[str]) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    port = _port(command)
    stop_services(folder, port)
    name = folder / f"{port}-{time.monotonic_ns()}"
    out, err = name.with_suffix(".out"), name.with_suffix(".err")
    with out.open("wb") as printed, err.open("wb") as logged:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=printed, stderr=logged, start_new_session=True
        )
    name.with_suffix(".pid").write_text(f"{process.pid} {port}")
    deadline = time.monotonic() + READY_SECONDS
    while not out.read_text().startswith("ready "):
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            name.with_suffix(".pid").unlink()
            sys.stdout.write(out.read_text())
            sys.stderr.write(err.read_text())
            return process.wait() or 1
        time.sleep(0.02)
    sys.stdout.write(out.read_text())
    return 0


def _port(command: list[str]) -> str:
    if "--grpc-port" in command:
        return command[command.index("--grpc-port") + 1]
    return os.environ.get("RESIGHT_GRPC__PORT", "7443")


def _ended(pid: int, seconds: float) -> bool:
    """Whether a process that may be nobody's child has ended in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


if __name__ == "__main__":
    sys.exit(_start(Path(sys.argv[1]), sys.argv[2:]))
