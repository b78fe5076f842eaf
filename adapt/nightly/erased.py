"""Crops that the service has no longer, dropped from what this machine holds of them.

A crop that was erased, deleted or dropped by age after it was fetched must not be trained on, shown
or kept. The service is asked before the training and after it, and about the crops of the last
report when the next night begins.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from adapt.nightly.lease import Lease
from adapt.nightly.pull import Pull
from adapt.nightly.state import NightState

__all__ = ["drop_erased", "drop_stale_report"]


def drop_erased(pull: Pull, lease: Lease, *, cache: Path) -> int:
    """Remove the images of crops that are gone, and, when there are any, the decoded pixels of all
    of them (made again where they are needed again); returns how many were gone.

    Raises:
        FailedPrecondition: the lease is lost.
        Unavailable: the service went away and did not come back.
    """
    missing = lease.missing([crop.crop_id for crop in pull.crops])
    if not missing:
        return 0
    for crop in pull.crops:
        if crop.crop_id in missing:
            crop.path.unlink(missing_ok=True)
    pull.crops[:] = [crop for crop in pull.crops if crop.crop_id not in missing]
    if cache.exists():
        shutil.rmtree(cache)
    return len(missing)


def drop_stale_report(state: NightState, lease: Lease) -> int:
    """Remove the last night's report when it was made of crops that are gone, or nobody knows of
    which; returns how many are gone.

    Raises:
        As ``drop_erased``.
    """
    if not state.report.exists():
        state.forget_report()
        return 0
    shown = state.reported()
    missing = set() if shown is None else lease.missing(shown)
    if shown is None or missing:
        state.forget_report()
    return len(missing)
