"""What two models side by side mean for verification, and when they are that no longer."""

from __future__ import annotations

from service.domain.query import SearchQuery
from tests.service.application.lifecycle import test_dual_serving as dual
from tests.service.application.lifecycle.test_dual_serving import PRIVATE, staged
from tests.service.application.lifecycle.test_outlived import verified

calibrated = dual.calibrated


def test_crops_of_the_model_before_are_not_missed_and_a_rollback_ends_it(
    site, run, calibrated, passed, tmp_path, image_of, monkeypatch
) -> None:
    monkeypatch.setitem(dual.LINES, 3, (5.0, -1.0))
    (tmp_path / "served-1.tar").write_bytes(calibrated(1, "served"))

    async def work() -> None:
        async with site(bundle=tmp_path / "served-1.tar", **PRIVATE) as it:
            lifecycle = it.application.models.lifecycle
            old = await it.ingest(range(6))
            second = await staged(it, calibrated(2), 2, passed)
            await it.ingest(range(6, 12))
            await lifecycle.promote("", second)
            report = await verified(it)
            assert not report.findings
            for crop in old:
                await it.application.crops.delete("", str(crop))
                it.crops.pop(crop)
            await lifecycle.retire("", it.versions[1])
            third = await staged(it, calibrated(3), 3, passed)
            await it.ingest(range(12, 18))
            await lifecycle.promote("", third)
            assert (await lifecycle.rollback("")).model_version == second
            assert await it.check() == 2, "it has a vector of every crop"
            # Refused while two models answer.
            asked = SearchQuery(image=image_of(1), top_k=5, min_score=-1.0)
            answer = await it.application.search.search(asked)
            assert {match.model_version for match in answer.matches} <= {second, ""}
            await lifecycle.rollback("")
            gallery = it.application._galleries.get("")
            assert gallery.models.beside is not None, "forward again, and both answer"

    run(work())
