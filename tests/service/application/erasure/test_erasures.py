"""Erasures by every subject: planned, reviewed, confirmed, proved; compared with the database, the
blob folder and the index, read past the service.
"""

from __future__ import annotations

import hashlib
import json
from base64 import b64decode
from datetime import timedelta
from uuid import uuid4

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from resight.errors import FailedPrecondition, InvalidArgument, NotFound, PermissionDenied
from service import call
from service.access.key_text import new_key_id, new_text
from service.application.ingest import IngestItem
from service.domain.crop import CropFilter, TimeRange
from service.domain.erasure import (
    CameraSubject,
    CropOutcome,
    CropsSubject,
    ErasureState,
    LikenessSubject,
    SpanSubject,
    TrackSubject,
)
from service.domain.principal import EVERYTHING, Principal
from service.erasure_ledger import erasures as ledger_entries

EVERYWHERE = ("rows", "vectors", "images", "index")


async def confirmed(application, subject, *, keep=()):
    made = await application.erasures.plan("", subject, "case 7")
    return await application.erasures.confirm(
        "", str(made.erasure_id), crops=made.listed - len(keep), keep=[str(each) for each in keep]
    )


@pytest.mark.parametrize("kind", ["crops", "track", "span", "camera"])
def test_a_subject_removes_its_crops_everywhere_and_no_other(
    opened, run, ingested, left, at, kind
) -> None:
    async def work() -> None:
        async with opened() as application:
            ids = await ingested(application, 12)
            ids += await ingested(application, 6, track="t9", first=12)
            subject, chosen = {
                "crops": (CropsSubject([str(ids[3]), str(ids[7])]), {3, 7}),
                "track": (TrackSubject("t9", "c1"), {12, 15}),
                "span": (SpanSubject(at(4), at(9), ["c2", "c3"]), {4, 5, 7, 8}),
                "camera": (CameraSubject("c2"), {1, 4, 7, 10, 13, 16}),
            }[kind]
            wanted = {ids[number] for number in chosen}

            made = await application.erasures.plan("", subject, "case 7")
            assert (made.state, made.listed) == (ErasureState.PLANNED, len(wanted))
            page = await application.erasures.crops("", str(made.erasure_id))
            assert {item.crop_id for item in page.items} == wanted
            before = left(application)
            assert all(before[where] == set(ids) for where in EVERYWHERE)

            done = await application.erasures.confirm("", str(made.erasure_id), crops=len(wanted))
            assert (done.state, done.removed) == (ErasureState.DONE, len(wanted))
            after = left(application)
            assert all(after[where] == set(ids) - wanted for where in EVERYWHERE)

    run(work())


def test_everything_like_a_crop_is_what_search_finds(opened, run, ingested, left, vectors) -> None:
    async def work() -> None:
        async with opened() as application:
            ids = await ingested(application, 60)
            stored = [vectors(b"crop %d" % number) for number in range(60)]
            scores = [float(stored[5] @ vector) for vector in stored]
            wanted = {ids[number] for number in range(60) if scores[number] >= 0.1}
            assert 3 < len(wanted) < 50

            subject = LikenessSubject(image=b"crop 5", min_score=0.1)
            made = await application.erasures.plan("", subject, "case 7")
            page = await application.erasures.crops("", str(made.erasure_id))
            assert {item.crop_id for item in page.items} == wanted
            listed = [item.score for item in page.items]
            assert listed == sorted(listed, reverse=True)
            by_id = dict(zip(ids, scores, strict=True))
            for item in page.items:
                assert item.score == pytest.approx(by_id[item.crop_id], abs=1e-6)
            assert "crop 5" not in made.subject

            kept = [item.crop_id for item in page.items][-2:]
            done = await application.erasures.confirm(
                "",
                str(made.erasure_id),
                crops=len(wanted) - 2,
                keep=[str(each) for each in kept],
            )
            assert (done.removed, done.kept) == (len(wanted) - 2, 2)
            expected = set(ids) - wanted | set(kept)
            assert left(application)["rows"] == left(application)["index"] == expected

    run(work())


def test_a_likeness_is_cut_at_its_most_and_says_so(opened, run, ingested) -> None:
    async def work() -> None:
        async with opened(limits={"max_top_k": 4}) as application:
            ids = await ingested(application, 20)
            everyone = LikenessSubject(crop_id=str(ids[0]), min_score=-1.0, max_crops=10)
            made = await application.erasures.plan("", everyone, "case 7")
            assert (made.listed, made.more) == (10, True)
            all_of_them = LikenessSubject(crop_id=str(ids[0]), min_score=-1.0, max_crops=20)
            made = await application.erasures.plan("", all_of_them, "case 7")
            assert (made.listed, made.more) == (20, False)
            near = LikenessSubject(
                crop_id=str(ids[0]), min_score=-1.0, filter=CropFilter(include_camera_ids=["c3"])
            )
            made = await application.erasures.plan("", near, "case 7")
            assert made.listed == 6

    run(work())


def test_what_comes_after_the_plan_stays(opened, run, ingested, left) -> None:
    async def work() -> None:
        async with opened() as application:
            ids = await ingested(application, 6)
            made = await application.erasures.plan("", CameraSubject("c1"), "case 7")
            later = await ingested(application, 3, first=6)
            # A crop that comes again under the id of a listed one is another crop.
            await application.crops.delete("", str(ids[0]))

            again = IngestItem(
                "", "c1", made.create_time - timedelta(days=1), b"new", crop_id=str(ids[0])
            )
            assert (await application.ingest.submit(again)).crop_id == ids[0]
            done = await application.erasures.confirm("", str(made.erasure_id), crops=2)
            assert (done.removed, done.absent) == (1, 1)
            assert left(application)["index"] == {*ids, *later} - {ids[3]}
            told = json.loads(done.receipt)["receipt"]["crops"]
            assert told["absent"]["ids"] == [str(ids[0])]

    run(work())


def test_a_count_that_differs_or_a_foreign_crop_removes_nothing(
    opened, run, ingested, left
) -> None:
    async def work() -> None:
        async with opened() as application:
            ids = await ingested(application, 6)
            made = await application.erasures.plan("", CameraSubject("c1"), "case 7")
            name = str(made.erasure_id)
            with pytest.raises(FailedPrecondition, match="2 of the list would go") as refused:
                await application.erasures.confirm("", name, crops=6)
            assert refused.value.reason == "ERASURE_COUNT_DIFFERS"
            with pytest.raises(InvalidArgument, match="not on the list"):
                await application.erasures.confirm("", name, crops=1, keep=[str(ids[1])])
            assert (await application.erasures.get("", name)).state is ErasureState.PLANNED
            cancelled = await application.erasures.cancel("", name)
            assert cancelled.state is ErasureState.CANCELLED
            assert (await application.erasures.cancel("", name)).state is ErasureState.CANCELLED
            with pytest.raises(FailedPrecondition, match="was cancelled"):
                await application.erasures.confirm("", name, crops=2)
            assert left(application)["rows"] == set(ids)

    run(work())


def test_confirmed_again_it_answers_with_the_same_receipt(opened, run, ingested) -> None:
    async def work() -> None:
        async with opened() as application:
            await ingested(application, 6)
            done = await confirmed(application, CameraSubject("c1"))
            name = str(done.erasure_id)
            again = await application.erasures.confirm("", name, crops=2)
            assert again.receipt == done.receipt != ""
            assert (await application.erasures.get("", name)).receipt == done.receipt
            page = await application.erasures.list("")
            assert [(each.erasure_id, each.receipt) for each in page.items] == [
                (done.erasure_id, "")
            ]
            with pytest.raises(FailedPrecondition):
                await application.erasures.confirm("", name, crops=3)
            with pytest.raises(FailedPrecondition, match="was confirmed"):
                await application.erasures.cancel("", name)

    run(work())


def test_the_receipt_is_signed_and_says_what_happened(
    opened, run, ingested, tmp_path, embedder
) -> None:
    async def work() -> None:
        async with opened() as application:
            ids = await ingested(application, 9)
            unknown = uuid4()
            subject = CropsSubject([*map(str, ids[:4]), str(unknown)])
            done = await confirmed(application, subject, keep=[ids[1]])
            whole = json.loads(done.receipt)
            told, signature = whole["receipt"], whole["signature"]
            signed = json.dumps(told, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
            key = load_pem_public_key(signature["public_key"].encode())
            key.verify(b64decode(signature["value"]), signed.encode())

            gone = sorted(str(ids[number]) for number in (0, 2, 3))
            digest = hashlib.sha256("".join(f"{each}\n" for each in gone).encode()).hexdigest()
            assert told["crops"] == {
                "confirmed": 3,
                "kept": 1,
                "removed": {"count": 3, "ids_sha256": digest, "ids": gone},
                "absent": {
                    "count": 1,
                    "ids_sha256": hashlib.sha256(f"{unknown}\n".encode()).hexdigest(),
                    "ids": [str(unknown)],
                },
                "more_matched": False,
            }
            places = told["removed_from"]
            assert places["catalog"]["rows"] == places["images"]["removed"] == 3
            assert places["vectors"] == [{"model_version": embedder.model_version, "vectors": 3}]
            assert places["index"]["pending"] == []
            assert len(places["index"]["confirmed"]) == 1
            assert places["index_files"]["rewritten"] is True
            folder = tmp_path / "data" / "erasures"
            assert {entry.crop_id for entry in ledger_entries(folder)} == {
                ids[0], ids[2], ids[3]
            }  # fmt: skip
            assert told["ledger"]["file"] in {path.name for path in folder.iterdir()}
            assert (told["reason"], told["planned_by"]) == ("case 7", "local")
            page = await application.erasures.crops("", str(done.erasure_id))
            assert {item.crop_id: item.outcome for item in page.items} == {
                ids[0]: CropOutcome.REMOVED,
                ids[1]: CropOutcome.KEPT,
                ids[2]: CropOutcome.REMOVED,
                ids[3]: CropOutcome.REMOVED,
                unknown: CropOutcome.ABSENT,
            }

    run(work())


@pytest.mark.parametrize(
    ("subject", "named"),
    [
        (CropsSubject([]), "subject.crops"),
        (CropsSubject(["x"]), "subject.crops"),
        (CropsSubject(["0198c0de-5a5a-7000-8000-3f1a2b3c4d5e"] * 10_001), "10001 ids"),
        (TrackSubject(""), "track_id is missing"),
        (SpanSubject(None, None), "needs start_time and end_time"),
        (LikenessSubject(image=b"x"), "min_probability"),
        (LikenessSubject(min_score=0.5), "exactly one of image"),
        (LikenessSubject(image=b"x", crop_id="y", min_score=0.5), "exactly one of image"),
        (LikenessSubject(image=b"x", min_score=2.0), "min_score"),
        (LikenessSubject(image=b"x", min_score=float("nan")), "min_score"),
        (LikenessSubject(image=b"x", min_score=0.5, max_crops=-1), "max_crops"),
        (LikenessSubject(image=b"bad", min_score=0.5), "decoded"),
    ],
)
def test_a_bad_subject_leaves_no_erasure(opened, run, ingested, query, subject, named) -> None:
    async def work() -> None:
        async with opened() as application:
            await ingested(application, 3)
            with pytest.raises(InvalidArgument, match=named):
                await application.erasures.plan("", subject, "case 7")
            with pytest.raises(NotFound, match="c9"):
                await application.erasures.plan("", CameraSubject("c9"), "case 7")
            with pytest.raises(InvalidArgument, match="reason"):
                await application.erasures.plan("", CameraSubject("c1"), "  ")
            with pytest.raises(NotFound, match="erasure"):
                await application.erasures.get("", str(uuid4()))

    run(work())
    assert query("select count(*) from erasures") == [(0,)]


def test_whoever_does_not_see_all_of_a_gallery_erases_nothing(opened, run, ingested, at) -> None:
    async def work() -> None:
        async with opened() as application:
            await ingested(application, 3)
            for limited in (
                Principal("key:a", "key", EVERYTHING, cameras=frozenset({"c1"})),
                Principal("key:b", "key", EVERYTHING, capture_range=TimeRange(at(0), at(1))),
            ):
                call.begin(call.Call("grpc", "", principal=limited))
                with pytest.raises(PermissionDenied, match="limited"):
                    await application.erasures.plan("", CameraSubject("c1"), "case 7")
                with pytest.raises(PermissionDenied, match="limited"):
                    await application.erasures.list("")
                with pytest.raises(PermissionDenied, match="limited"):
                    await application.camera_retention.update("", "c1", 3.0)

    run(work())


def test_a_large_list_is_paged_and_removed_in_batches(opened, run, ingested, left) -> None:
    async def work() -> None:
        governance = {"erasure_batch_crops": 7}
        async with opened(governance=governance) as application:
            ids = await ingested(application, 60)
            made = await application.erasures.plan("", CameraSubject("c1"), "case 7")
            found, token = [], ""
            while True:
                page = await application.erasures.crops("", str(made.erasure_id), 6, token)
                found += [item.crop_id for item in page.items]
                token = page.next_page_token
                if not token:
                    break
            assert found == ids[::3]
            before = application.commits
            await application.erasures.confirm("", str(made.erasure_id), crops=20)
            assert application.commits - before >= 3
            assert left(application)["index"] == set(ids) - set(ids[::3])

    run(work())


def test_a_credential_given_as_reason_or_subject_is_written_nowhere(
    opened, run, ingested, left, query
) -> None:
    credential = new_text(new_key_id())

    async def work() -> None:
        async with opened() as application:
            (shown,) = await ingested(application, 1, track=credential)
            subject = TrackSubject(credential)
            made = await application.erasures.plan("", subject, f"case {credential}")
            assert made.listed == 1
            done = await application.erasures.confirm("", str(made.erasure_id), crops=1)
            assert shown not in left(application)["rows"]
            told = json.loads(done.receipt)["receipt"]
            assert told["reason"] == done.reason == "case (credential)"
            assert told["subject"] == {"track": {"track_id": "(credential)"}}

    run(work())
    stored = query("SELECT subject, reason, receipt FROM erasures")
    assert len(stored) == 1
    assert credential not in repr(stored)
