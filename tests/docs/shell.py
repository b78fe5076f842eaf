"""Runs the blocks of a page one after the other, as a reader with one terminal for the service and
one for everything else would.

Every block, and every command of a console block, is a bash of its own that is given the exported
variables and the folder that the one before it left. ``resight serve`` is put into the background
when it says that it is ready (``service_terminal``), and stopped when another one takes its port,
when the page says so, and at the end. What a page takes for granted (ports, folders at the root of
the machine, a database server) is replaced in the text of a command, and put back in what it
prints.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.docs.pages import Block, Command
from tests.docs.service_terminal import stop_services

__all__ = ["PageShell", "differs"]

RESIGHT = Path(sys.executable).with_name("resight")
# The wall clock of one block: a page that needs longer is no page to follow at night.
SECONDS = 300
_FOLDERS = ("backup", "etc", "run", "shared", "srv", "var")

_WRAPPER = """\
#!/usr/bin/env bash
[[ " ${{1-}} $* " == " serve "* && " $* " != *" --help "* ]] || exec {resight} "$@"
exec {python} {terminal} {services} {resight} "$@"
"""


@dataclass
class PageShell:
    """A scratch folder with what the pages take for granted, and a terminal in it."""

    root: Path
    replaced: Mapping[str, str] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    programs: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        self._private = self.root / ".terminal"
        self._programs = self._private / "bin"
        self._programs.mkdir(parents=True)
        for folder in ("home", "tmp", *_FOLDERS):
            (self.root / folder).mkdir(exist_ok=True)
        program = self._programs / "resight"
        self._services = self._private / "services"
        program.write_text(
            _WRAPPER.format(
                resight=shlex.quote(str(RESIGHT)),
                python=shlex.quote(sys.executable),
                terminal=shlex.quote(str(Path(__file__).with_name("service_terminal.py"))),
                services=shlex.quote(str(self._services)),
            )
        )
        program.chmod(0o755)
        self._state = self._private / "state"
        self._state.write_text(f"cd {shlex.quote(str(self.root))}\n")

    def run(self, block: Block) -> list[str]:
        """Run a block; what is wrong with it, one entry a command."""
        wrong = self.stop_services() if block.service_was_stopped else []
        if block.language == "bash":
            whole = Command(block.text, block.line, ())
            return wrong + self._judged(block, whole, block.exit_code)
        commands = block.commands()
        for command in commands:
            code = block.exit_code if command is commands[-1] else 0
            wrong += self._judged(block, command, code)
        return wrong

    def stop_services(self) -> list[str]:
        """End every service; what went wrong with that."""
        return stop_services(self._services)

    def _judged(self, block: Block, command: Command, exit_code: int) -> list[str]:
        code, printed = self._execute(command.text)
        where = f"{block.page.name}:{command.line}"
        if code != exit_code:
            return [f"{where}: exit code {code}, not {exit_code}: {command.text}\n{printed}"]
        if any(line.strip() for line in command.output):
            difference = differs("\n".join(command.output), printed)
            if difference:
                return [f"{where}: {command.text}\n{difference}"]
        return []

    def _execute(self, text: str) -> tuple[int, str]:
        script = self._private / "block.sh"
        script.write_text(
            f". {shlex.quote(str(self._state))}\n"
            f'trap \'{{ export -p; printf "cd %q\\n" "$PWD"; }} >{self._state}\' EXIT\n'
            f"set -euo pipefail\n{self._here(text)}\n"
        )
        log = self._private / "output"
        with log.open("wb") as stream:
            process = subprocess.Popen(
                ["/usr/bin/env", "bash", "--noprofile", "--norc", str(script)],
                stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, cwd=self.root,
                env=self._environment(), start_new_session=True,
            )  # fmt: skip
            try:
                code = process.wait(SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                code = -1
                stream.write(f"(ended after {SECONDS} s)".encode())
        return code, self._there(log.read_text(errors="replace"))

    def _environment(self) -> dict[str, str]:
        kept = {
            name: os.environ[name]
            for name in ("LANG", "LC_ALL", "PYTHONPATH", "TZ")
            if name in os.environ
        }
        path = os.pathsep.join(
            [
                *map(str, (self._programs, *self.programs, RESIGHT.parent)),
                os.environ.get("PATH", os.defpath),
            ]
        )
        return {
            **kept, "HOME": str(self.root / "home"), "TMPDIR": str(self.root / "tmp"),
            "PATH": path, "COLUMNS": "120", "OMP_NUM_THREADS": "1",
            # Output and errors in the order in which a terminal has them.
            "PYTHONUNBUFFERED": "1", **self.variables,
        }  # fmt: skip

    def _here(self, text: str) -> str:
        for documented, real in self.replaced.items():
            text = text.replace(documented, real)
        folders = "|".join(_FOLDERS)
        return re.sub(rf"(?<![\w./$}}-])/({folders})(?=[/\s\"']|$)", rf"{self.root}/\1", text)

    def _there(self, text: str) -> str:
        for documented, real in self.replaced.items():
            text = text.replace(real, documented)
        folders = "|".join(_FOLDERS)
        root = re.escape(str(self.root))
        return re.sub(rf"{root}/({folders})(?=\W|$)", r"/\1", text).replace(str(self.root), ".")


def differs(shown: str, printed: str) -> str | None:
    """Where what is printed is not what a page shows, in which ``...`` stands for anything: alone
    on a line for any lines, else for any text within it. None when it is the same.
    """
    expected = [line.rstrip() for line in shown.strip("\n").splitlines()]
    pattern = ""
    for line in expected:
        if line.strip() == "...":
            pattern += r"(?:[^\n]*\n)*"
        else:
            pattern += ".*".join(re.escape(part) for part in line.split("...")) + r" *\n"
    text = "\n".join(line.rstrip() for line in printed.strip("\n").splitlines()) + "\n"
    if re.fullmatch(pattern, text):
        return None
    return f"--- the page shows\n{chr(10).join(expected)}\n--- it prints\n{text}"
