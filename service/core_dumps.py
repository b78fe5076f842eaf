"""No core dumps: a dump of a service holds the images that it was just looking at.

``RLIMIT_CORE`` (setrlimit(2)) stops the kernel from writing one to a file, ``PR_SET_DUMPABLE``
(prctl(2)) from handing one to a program such as systemd-coredump or apport, and other processes of
the same user from attaching.
"""

from __future__ import annotations

import ctypes
import os
import resource

from resight.errors import FailedPrecondition

__all__ = ["forbid_core_dumps"]

PR_SET_DUMPABLE = 4


def forbid_core_dumps() -> None:
    """Of this process, from now on.

    Raises:
        FailedPrecondition: the system does not let it.
    """
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        library = ctypes.CDLL(None, use_errno=True)
        if library.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    except (OSError, ValueError, AttributeError) as error:
        raise FailedPrecondition(
            f"privacy.store_images=false needs core dumps to be forbidden, and this system does "
            f"not let it ({error}); run on Linux, without a seccomp profile that forbids prctl",
            field="privacy.store_images",
            reason="CORE_DUMPS_ALLOWED",
        ) from error
