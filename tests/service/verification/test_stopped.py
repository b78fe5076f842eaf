"""The data directory of a stopped service compared: catalog, index files, images."""

from __future__ import annotations

import pytest

from resight.errors import FailedPrecondition
from service.application.ingest import IngestItem
from service.settings import load_settings
from service.verification.findings import Report
from service.verification.stopped import verify_stopped


@pytest.fixture
def settings(tmp_path, catalog_url):
    return load_settings({"data_dir": tmp_path / "data", "database_url": catalog_url})


@pytest.fixture
def fill(opened, run, at):
    def filled(*, remove: int = 0) -> None:
        async def work() -> None:
            async with opened() as application:
                ids = []
                for number in range(10):
                    item = IngestItem("", "c1", at(number), b"image %d" % number)
                    ids.append((await application.ingest.submit(item)).crop_id)
                application._galleries.get("").serving.index.remove(ids[:remove])

        run(work())

    return filled


def kinds(reports: list[Report]) -> dict[str, int]:
    (report,) = reports
    return {finding.kind: finding.count for finding in report.findings}


def test_what_a_service_left_is_sound(fill, settings) -> None:
    fill()
    (report,) = verify_stopped(settings, sample=None, repair=False)
    assert report.findings == ()
    assert (report.crops, report.rows, report.images, report.images_read) == (10,) * 4


def test_rows_missing_from_the_files_are_written(fill, settings, opened, run) -> None:
    fill(remove=3)
    assert kinds(verify_stopped(settings, sample=0, repair=False)) == {"INDEX_ROW_MISSING": 3}
    (report,) = verify_stopped(settings, sample=0, repair=True)
    assert report.repaired == 10
    assert kinds(verify_stopped(settings, sample=0, repair=False)) == {}

    async def work() -> None:
        async with opened(cameras=False) as application:
            assert application.crop_count == 10

    run(work())


def test_every_altered_index_file_is_found_and_mended(fill, settings) -> None:
    fill()
    index = settings.data_dir / "index"
    files = [path for path in index.rglob("*") if path.is_file()]
    assert len(files) == 2
    for path in files:
        whole = bytearray(path.read_bytes())
        # Between two arrays lies padding; the last byte is of one.
        whole[-1] ^= 1
        path.write_bytes(whole)
        assert kinds(verify_stopped(settings, sample=0, repair=False)) == {"INDEX_FILES_DAMAGED": 1}
        verify_stopped(settings, sample=0, repair=True)
        (report,) = verify_stopped(settings, sample=0, repair=False)
        assert (report.findings, report.rows) == ((), 10)


def test_no_index_files_are_no_fault(fill, settings) -> None:
    fill()
    for path in (settings.data_dir / "index").rglob("*"):
        if path.is_file():
            path.unlink()
    (report,) = verify_stopped(settings, sample=0, repair=False)
    assert (report.findings, report.rows) == ((), None)


def test_a_running_service_is_not_looked_at_behind_its_back(opened, run, settings) -> None:
    async def work() -> None:
        async with opened():
            with pytest.raises(FailedPrecondition, match="in use by process"):
                verify_stopped(settings, sample=0, repair=False)

    run(work())


def test_a_directory_without_a_catalog_is_named_and_not_made(tmp_path) -> None:
    settings = load_settings({"data_dir": tmp_path / "elsewhere"})
    with pytest.raises(FailedPrecondition, match="there is no catalog at"):
        verify_stopped(settings, sample=0, repair=False)
    assert not settings.data_dir.exists()
