"""The two libraries that build and run engines; their Python APIs differ in name only.

``tensorrt`` builds for the GPU of the machine it runs on. ``tensorrt_rtx`` builds for a named
compute capability on a machine without a GPU, and runs on RTX cards.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any, Literal, get_args

from resight.errors import FailedPrecondition, InvalidArgument

__all__ = ["BACKENDS", "Backend", "BackendName", "load_backend", "parse_capability"]

BackendName = Literal["tensorrt", "tensorrt_rtx"]
BACKENDS: tuple[BackendName, ...] = get_args(BackendName)


@dataclass(frozen=True)
class Backend:
    """A library that was found.

    Attributes:
        name: Which of the two.
        module: Its Python module.
    """

    name: BackendName
    module: Any

    @property
    def version(self) -> str:
        """Version of the library; an engine runs under the version that built it, no other."""
        return str(self.module.__version__)

    @property
    def label(self) -> str:
        """The version as file names hold it: ``11.4.0.106``, ``rtx1.7.1.116``."""
        return f"rtx{self.version}" if self.name == "tensorrt_rtx" else self.version

    def logger(self) -> Any:
        """A logger that keeps errors for our own messages, in ``.errors``, and drops the rest."""
        severity = self.module.ILogger.Severity
        errors: list[str] = []

        def log(_logger: Any, level: Any, message: str) -> None:
            if level in {severity.ERROR, severity.INTERNAL_ERROR}:
                errors.append(message.strip())

        def start(logger: Any) -> None:
            self.module.ILogger.__init__(logger)
            logger.errors = errors

        # The base class is known only once the library is loaded.
        return type("KeptErrors", (self.module.ILogger,), {"log": log, "__init__": start})()


def load_backend(name: str) -> Backend:
    """Imports a library.

    Raises:
        InvalidArgument: No such backend.
        FailedPrecondition: It is not installed, or does not load.
    """
    for known in BACKENDS:
        if name == known:
            return Backend(known, _import(known))
    raise InvalidArgument(
        f"backend: {name!r} is none; use one of {', '.join(BACKENDS)}", field="backend"
    )


def parse_capability(text: str) -> tuple[int, int]:
    """``8.9`` as (8, 9).

    Raises:
        InvalidArgument: It is not of that form.
    """
    major, dot, minor = text.partition(".")
    if not (dot and major.isdecimal() and minor.isdecimal() and len(major) < 3 and len(minor) < 2):
        raise InvalidArgument(
            f"compute_capability: {text!r} is not of the form 8.9; `nvidia-smi --query-gpu="
            "compute_cap --format=csv` shows a card's",
            field="compute_capability",
        )
    return int(major), int(minor)


def _import(name: BackendName) -> Any:
    extra = name.replace("_", "-")
    failures = []
    # The library's wheel first: the bindings find it loaded, whatever the linker's search path.
    for package in (f"{name}_libs", name, f"{name}_bindings"):
        try:
            module = importlib.import_module(package)
        except (ImportError, OSError) as error:
            failures.append(f"{package}: {error}")
            continue
        if hasattr(module, "Builder"):
            return module
    raise FailedPrecondition(
        f"backend: {name} is not installed here ({'; '.join(failures)}); install the extra"
        f" {extra}: pip install 'resight[{extra}]'",
        field="backend",
        reason="BACKEND_MISSING",
    )
