"""The files of a model that is kept to go back to are looked at, too."""

from __future__ import annotations

from service.application.index_keeper import index_folder
from service.settings import load_settings
from service.verification.stopped import verify_stopped


def test_damaged_files_of_the_previous_model_are_found_and_mended(
    site, run, tmp_path, catalog_url
) -> None:
    folders = []

    async def work() -> None:
        async with site() as it:
            await it.ingest(range(12))
            await it.promoted(2)
            root = tmp_path / "data" / "index"
            (previous,) = it.application._galleries.get("").models.warm
            folders.append(index_folder(root, previous.record).path)

    run(work())
    (folder,) = folders
    settings = load_settings(
        {
            "data_dir": tmp_path / "data",
            "database_url": catalog_url,
            "blob_url": f"file://{tmp_path}/blobs",
        }
    )

    def kinds(*, repair: bool = False) -> list[str]:
        (report,) = verify_stopped(settings, sample=0, repair=repair)
        return [finding.kind for finding in report.findings]

    assert kinds() == []
    segment = next(path for path in folder.iterdir() if path.suffix == ".segment")
    whole = bytearray(segment.read_bytes())
    whole[-1] ^= 1
    segment.write_bytes(whole)
    assert kinds() == ["INDEX_FILES_DAMAGED"]
    kinds(repair=True)
    assert kinds() == []
