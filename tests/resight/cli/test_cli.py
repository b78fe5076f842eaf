"""The lazy command line: what it imports, how it fails, what it prints."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
from importlib.metadata import entry_points, packages_distributions, requires, version
from pathlib import Path

import pytest

from resight import cli

HALVES = (
    "torch",
    "timm",
    "onnxruntime",
    "onnx",
    "sqlalchemy",
    "fastapi",
    "faiss",
    "adapt",
    "service",
)


def python(code: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"COLUMNS": "120"} | environment,
    )


def resight(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return python("from resight.cli import main; main()", *arguments, **environment)


@pytest.fixture
def plugin(tmp_path: Path) -> str:
    """Code that adds a command ``probe`` from a module of its own to the real command line."""
    (tmp_path / "probe_command.py").write_text(
        textwrap.dedent(
            """
            import sys, time
            from pathlib import Path
            import typer
            from resight.console import emit, progress
            from resight.errors import InvalidArgument, Refused

            app = typer.Typer()

            @app.command()
            def probe(how: str, number: int = 1) -> None:
                if how == "refused":
                    raise Refused("gate: the candidate is worse")
                if how == "failed":
                    raise InvalidArgument("crops: none; name some", field="crops")
                if how == "torch":
                    sys.modules["torch"] = None
                    import torch
                if how == "sqlalchemy":
                    sys.modules["sqlalchemy"] = None
                    import sqlalchemy
                if how == "file":
                    open("/nowhere/at/all")
                if how == "defect":
                    raise ZeroDivisionError("a defect")
                if how == "wait":
                    print("waiting", flush=True)
                    time.sleep(60)
                with progress("counting", 3) as bar:
                    bar.advance()
                    bar.advance(2)
                answer = {"number": number, "path": Path("a")}
                emit(answer, as_json=how == "json", text="plain")
            """
        )
    )
    return f"""
        import sys
        sys.path.insert(0, {str(tmp_path)!r})
        from importlib.metadata import EntryPoint
        from resight import cli
        point = EntryPoint("probe", "probe_command:app", "resight.commands")
        cli._entry_points = lambda: {{"probe": point}}
        cli.main()
        """


def test_listing_the_commands_imports_none_of_them() -> None:
    done = python(
        f"""
        import sys
        from resight.cli import main
        try:
            main()
        except SystemExit as stop:
            loaded = [name for name in {HALVES!r} if name in sys.modules]
            print("LOADED", loaded, stop.code)
        """,
        "--help",
    )
    assert "LOADED [] 0" in done.stdout
    for point in entry_points(group="resight.commands"):
        assert point.name in done.stdout


def test_every_command_of_this_installation_has_a_summary() -> None:
    assert set(cli._entry_points()) == set(cli._SUMMARIES)


def test_the_version_is_that_of_the_distribution() -> None:
    assert resight("--version").stdout == f"resight {version('resight')}\n"


def test_a_deployments_own_version_variable_is_no_option(plugin: str) -> None:
    done = python(plugin, "probe", "json", RESIGHT_VERSION="1")
    assert json.loads(done.stdout)["number"] == 1


def test_a_mistyped_command_is_a_usage_error_with_advice() -> None:
    done = resight("bundel")
    assert done.returncode == 2
    assert "Did you mean 'bundle'" in done.stderr


@pytest.mark.parametrize(
    ("how", "code", "line"),
    [
        ("refused", 3, "error: gate: the candidate is worse"),
        ("failed", 1, "error: crops: none; name some"),
        ("torch", 1, "error: this command needs the Python module torch, which is not installed;"
                     " run: pip install 'resight[adapt]'"),
        ("sqlalchemy", 1, "error: this command needs the Python module sqlalchemy, which is not"
                          " installed; run: pip install 'resight[service-cpu]' (or service-gpu)"),
        ("file", 1, "error: /nowhere/at/all: No such file or directory"),
    ],
)  # fmt: skip
def test_errors_become_one_line_and_an_exit_code(
    plugin: str, how: str, code: int, line: str
) -> None:
    done = python(plugin, "probe", how)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.strip() == line


def test_a_defect_keeps_its_traceback(plugin: str) -> None:
    done = python(plugin, "probe", "defect")
    assert done.returncode == 1
    assert "ZeroDivisionError: a defect" in done.stderr


def test_a_command_whose_module_is_missing_says_which_extra_brings_it(tmp_path: Path) -> None:
    (tmp_path / "heavy_command.py").write_text(
        "import sys; sys.modules['timm'] = None; import timm"
    )
    done = python(
        f"""
        import sys
        sys.path.insert(0, {str(tmp_path)!r})
        from importlib.metadata import EntryPoint
        from resight import cli
        point = EntryPoint("heavy", "heavy_command:app", "resight.commands")
        cli._entry_points = lambda: {{"heavy": point}}
        cli.main()
        """,
        "heavy",
    )
    assert done.returncode == 1
    assert "pip install 'resight[adapt]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_completion_is_the_roots_alone() -> None:
    assert "--install-completion" in resight("--help").stdout
    for words in (("gallery",), ("search",)):
        told = resight(*words, "--help").stdout
        assert "Usage" in told
        assert "completion" not in told


def test_every_module_that_only_the_adapt_extra_brings_is_known_as_such() -> None:
    def named(extra: str) -> set[str]:
        lines = [line for line in requires("resight") or [] if f'extra == "{extra}"' in line]
        return {re.split(r"[^\w.-]", line)[0].lower() for line in lines}

    modules: dict[str, set[str]] = {}
    for module, distributions in packages_distributions().items():
        for distribution in distributions:
            modules.setdefault(distribution.lower(), set()).add(module)
    for distribution in named("adapt") - named("service") - named("service-cpu"):
        assert modules[distribution] & cli._ADAPT_MODULES, distribution


def test_json_is_one_object_and_progress_stays_off_stdout(plugin: str) -> None:
    done = python(plugin, "probe", "json", "--number", "7")
    assert json.loads(done.stdout) == {"number": 7, "path": "a"}
    assert done.stderr.startswith("counting: 3 in ")
    assert python(plugin, "probe", "text").stdout == "plain\n"


def test_an_option_is_read_from_its_environment_twin(plugin: str) -> None:
    done = python(plugin, "probe", "json", RESIGHT_PROBE_NUMBER="9")
    assert json.loads(done.stdout)["number"] == 9
    done = python(plugin, "probe", "json", "--number", "3", RESIGHT_PROBE_NUMBER="9")
    assert json.loads(done.stdout)["number"] == 3
    done = python(plugin, "probe", "json", RESIGHT_PROBE_NUMBER="many")
    assert done.returncode == 2


def test_an_interrupt_ends_with_130_and_one_line(plugin: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(plugin), "probe", "wait"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "waiting\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert errors.strip() == "interrupted"
