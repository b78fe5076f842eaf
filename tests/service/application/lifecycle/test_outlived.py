"""A replica on which the new model does not run, while the one that it answers with is retired."""

from __future__ import annotations

import pytest
from sqlalchemy import update

from resight.errors import FailedPrecondition, Unavailable
from service.application import lineup
from service.application.ingest import Outcome
from service.catalog import lifecycle
from service.catalog.model_states import Actor, Note
from service.catalog.models import model_fillings
from service.domain.filling import FillingSource, FillingState
from service.verification.findings import Report
from tests.service.application.lifecycle.conftest import NOON, Site


async def elsewhere(it: Site, change) -> None:
    """A change of models as another replica makes it."""
    gallery = it.application._galleries.get("")
    await it.application._catalog.change(
        lambda connection: change(connection, gallery.row), committed=lambda _: gallery.follow()
    )


def refuses(it: Site) -> tuple[bool, bool]:
    """Searches, crops."""
    gauges = it.application.gauges()["default"]
    return gauges.refuses_searches, gauges.refuses_crops


async def verified(it: Site) -> Report:
    (report,) = [
        told async for told in it.application.verification.verify("") if isinstance(told, Report)
    ]
    return report


def test_it_answers_with_the_model_before_until_that_is_retired(
    site, run, monkeypatch, caplog
) -> None:
    note = Note(Actor.CALLER, "", NOON)

    def staged(version: str):
        def apply(connection, row: int) -> None:
            source = FillingSource.IMAGES
            lifecycle.stage(
                connection, row, version, source=source, retire_previous=False, note=note
            )
            done = {"state": FillingState.COMPLETE.value}
            connection.execute(update(model_fillings).values(**done))

        return apply

    def promoted(version: str):
        return lambda connection, row: lifecycle.promote(
            connection, row, version, allow_missing=True, force=False, note=note
        )

    async def work() -> None:
        async with site() as it:
            await it.ingest(range(8))
            version = await it.register(2)
            encoders = it.application.models._encoders
            obtain, whole, tries, fault = encoders.obtain, [], [], ["its archive is not there"]

            async def obtained(record):
                if record.model_version == version and not whole:
                    tries.append(fault[0])
                    raise FailedPrecondition(fault[0], reason="BUNDLE_MISSING")
                return await obtain(record)

            monkeypatch.setattr(encoders, "obtain", obtained)
            monkeypatch.setattr(lineup, "RETRY_SECONDS", 0.05)
            assert refuses(it) == (False, False)
            await elsewhere(it, staged(version))
            await elsewhere(it, promoted(version))
            assert await it.check() == 1
            await it.until(lambda: refuses(it) == (False, True))
            assert (await it.send(100)).outcome is Outcome.RETRY
            assert not (await verified(it)).findings
            await elsewhere(
                it, lambda connection, row: lifecycle.retire(connection, row, it.versions[1],
                                                             note=note)
            )  # fmt: skip
            for refused in (it.check(), verified(it)):
                with pytest.raises(Unavailable) as caught:
                    await refused
                assert caught.value.reason == "MODEL_NOT_LOADED"
            assert refuses(it) == (True, True)
            fault[0] = "its archive is damaged"
            await it.until(lambda: tries.count(fault[0]) > 3)
            logged = [line for line in caplog.messages if "cannot be brought up to date" in line]
            assert [fault[0] in line for line in logged] == [False, True]
            whole.append(True)
            gallery = it.application._galleries.get("")
            await it.until(lambda: gallery.serving.version == version)
            it.crops.clear()
            await it.ingest([200])
            assert await it.check() == 2
            await it.until(lambda: refuses(it) == (False, False))

    run(work())
