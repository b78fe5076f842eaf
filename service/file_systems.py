"""File systems of fsspec, set up for a service: what does not answer is told soon.

s3fs tries whatever fails five times, over seconds, and botocore below it each of them five times:
together most of a minute, in which nobody is told anything. One of them is enough.
"""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import urlsplit

import fsspec

__all__ = ["open_file_system"]

_ONCE = {"retries": {"total_max_attempts": 1}, "connect_timeout": 5.0}
_S3 = ("s3", "s3a")


def open_file_system(url: str) -> tuple[Any, str]:
    """The file system of a URL, and where on it.

    Raises:
        ValueError, ImportError, OSError: its scheme is unknown or its package is missing.
    """
    found: tuple[Any, str] = fsspec.core.url_to_fs(url, **_options(urlsplit(url).scheme))
    return found


def _options(scheme: str) -> dict[str, Any]:
    """Ours, unless somebody has chosen."""
    own = fsspec.config.conf.get("s3", {})
    if scheme not in _S3 or "config_kwargs" in own or "AWS_MAX_ATTEMPTS" in os.environ:
        return {}
    return {"config_kwargs": dict(_ONCE)}
