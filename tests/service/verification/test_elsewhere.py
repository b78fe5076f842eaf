"""An index that has no state to pin is compared in blocks; here one that is in this process."""

from __future__ import annotations

from uuid import uuid4

import numpy as np
import pytest

from service.application.ingest import IngestItem
from service.domain.ports import IndexRows
from service.gallery.row_ids import id_halves
from service.verification import elsewhere
from service.verification.elsewhere import compare_elsewhere
from service.verification.findings import Findings


@pytest.mark.parametrize("block", [3, 2000])
def test_what_was_planted_is_found_and_nothing_else(opened, run, at, monkeypatch, block) -> None:
    monkeypatch.setattr(elsewhere, "BLOCK", block)

    async def work() -> None:
        async with opened() as application:
            ids = []
            for number in range(12):
                item = IngestItem("", "c1", at(number), b"image %d" % number)
                ids.append((await application.ingest.submit(item)).crop_id)
            gallery = application._galleries.get("")
            index, findings = gallery.serving.index, Findings()
            compared = (application._catalog, gallery, gallery.serving)
            assert compare_elsewhere(*compared, findings) == []
            assert findings.all() == ()

            extra = uuid4()
            turned = -index.vectors_of([ids[7]])[1]

            def plant() -> None:
                index.remove([ids[2], ids[5], ids[7]])
                index.add(rows([ids[7], extra], np.concatenate([turned, turned])))

            def rows(named, vectors) -> IndexRows:
                camera = gallery.cameras["c1"].camera_row
                return IndexRows(
                    id_halves(named),
                    np.full(len(named), camera),
                    np.zeros(len(named), np.int64),
                    vectors,
                )

            await application._catalog.run(plant)
            wrong = compare_elsewhere(*compared, findings)
            assert set(wrong) == {ids[2], ids[5], ids[7], extra}
            found = {each.kind: set(each.examples) for each in findings.all()}
            assert found == {
                "INDEX_ROW_MISSING": {str(ids[2]), str(ids[5])},
                "INDEX_ROW_EXTRA": {str(extra)},
                "INDEX_ROW_DIFFERS": {str(ids[7])},
            }

    run(work())
