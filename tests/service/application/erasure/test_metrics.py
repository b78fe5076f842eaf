"""What the metrics tell of erasures, and of one that is not finished."""

from __future__ import annotations

import pytest

from resight.errors import Unavailable
from service.domain.erasure import CameraSubject, ErasureState
from service.telemetry import REGISTRY


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def test_an_unfinished_erasure_grows_overdue_until_it_is_done(
    opened, run, ingested, left, clock, monkeypatch
) -> None:
    async def work() -> None:
        async with opened(clock=clock) as application:
            ids = await ingested(application, 6)
            before = {
                name: value("resight_erasures_total", outcome=name)
                for name in ("planned", "interrupted", "done", "cancelled")
            }
            crops = value("resight_erasure_crops_removed_total")
            made = await application.erasures.plan("", CameraSubject("c1"), "case 7")
            other = await application.erasures.plan("", CameraSubject("c2"), "case 8")
            application.erasing.backlog.show()
            assert value("resight_erasure_open", state="planned") == 2
            assert value("resight_erasure_overdue_seconds") == 0

            def away(_keys: object) -> None:
                raise OSError("no such bucket")

            with monkeypatch.context() as patched:
                patched.setattr(application._blobs, "delete_all", away)
                with pytest.raises(Unavailable, match="no such bucket") as refused:
                    await application.erasures.confirm("", str(made.erasure_id), crops=2)
            assert refused.value.reason == "IMAGE_REMOVAL_PENDING"
            # Found by nobody any more, but the images are still there, so there is no receipt.
            here = left(application)
            assert here["rows"] == here["index"] == set(ids) - {ids[0], ids[3]}
            assert len(here["images"]) == 6
            found = await application.erasures.get("", str(made.erasure_id))
            assert (found.state, found.receipt) == (ErasureState.RUNNING, "")
            clock.pass_seconds(7200)
            application.erasing.backlog.show()
            assert value("resight_erasure_open", state="running") == 1
            assert value("resight_erasure_overdue_seconds") == pytest.approx(7200)

            done = await application.erasures.confirm("", str(made.erasure_id), crops=2)
            assert done.state is ErasureState.DONE
            assert left(application)["images"] == set(ids) - {ids[0], ids[3]}
            await application.erasures.cancel("", str(other.erasure_id))
            application.erasing.backlog.show()
            assert value("resight_erasure_overdue_seconds") == 0
            assert value("resight_erasure_open", state="running") == 0
            assert value("resight_erasure_open", state="planned") == 0
            assert value("resight_erasure_crops_removed_total") - crops == 2
            counted = {
                name: value("resight_erasures_total", outcome=name) - count
                for name, count in before.items()
            }
            assert counted == {"planned": 2, "interrupted": 1, "done": 1, "cancelled": 1}

    run(work())
