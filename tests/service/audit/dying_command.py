"""A command on a catalog that is killed in the transaction of its change: ARGV is the data
directory, the database, the command (``create``, or the id of a key to revoke) and where it dies.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from service.access import direct as commands
from service.audit.operation import Operation
from service.domain.api_key import KeyRequest
from service.settings import load_settings

direct: Any = commands
data, url, what, place = sys.argv[1:]


def dies(*_: Any, **__: Any) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


if place == "before":
    direct.make_key = direct.api_keys.revoke_key = dies
else:
    # Change and end are written, and not committed.
    end = Operation.end

    def ends(*told: Any) -> None:
        end(*told)
        dies()

    Operation.end = ends  # type: ignore[assignment,method-assign]
settings = load_settings({"data_dir": data, "database_url": url})
if what == "create":
    direct.create(settings, KeyRequest("x", ["search"]))
else:
    direct.revoke(settings, what)
