"""A snapshot restored and started with another bundle: what `restore` says is what a start does."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from resight.errors import FailedPrecondition
from service.settings import ServiceSettings, load_settings
from service.snapshot.encoders import RestoredEncoders
from service.snapshot.restoring import Restored, restore
from service.snapshot.taking import take


def place(tmp_path: Path, name: str, **more: str) -> ServiceSettings:
    return load_settings({"data_dir": tmp_path / name, **more})


def urls(settings: ServiceSettings) -> dict[str, str]:
    return {
        "database_url": settings.resolved_database_url(),
        "blob_url": settings.resolved_blob_url(),
    }


def moved(tmp_path: Path, catalog_url: str) -> tuple[Restored, ServiceSettings]:
    """What the site has, in a directory and database of its own."""
    blobs = f"file://{tmp_path}/blobs"
    source = place(tmp_path, "data", database_url=catalog_url, blob_url=blobs)
    take(source, tmp_path / "s", images=True)
    target = place(tmp_path, "restored")
    return restore(target, tmp_path / "s"), target


@pytest.mark.parametrize("kept", [True, False])
def test_a_promoted_model_is_served_from_its_restored_archive_whatever_the_bundle(
    site, run, tmp_path, catalog_url, kept: bool
) -> None:
    async def filled() -> tuple[str, dict]:
        async with site() as it:
            await it.ingest(range(8))
            return await it.promoted(2), it.crops

    version, crops = run(filled())
    if not kept:
        shutil.rmtree(tmp_path / "data" / "bundles")
        shutil.rmtree(tmp_path / "blobs" / ".bundles")
    restored, target = moved(tmp_path, catalog_url)

    async def served() -> None:
        async with site(data="restored", seed=3, crops=crops, **urls(target)) as it:
            it.versions[2] = version
            assert await it.check() == 2

    if kept:
        assert restored.encoders == RestoredEncoders([version], [])
        assert str(restored.encoders) == (
            f"the archive of {version} was restored: serve it with any bundle"
        )
        run(served())
    else:
        assert restored.encoders == RestoredEncoders([], [version])
        assert str(restored.encoders) == f"serve it with the bundle of model {version}"
        with pytest.raises(FailedPrecondition, match="neither under the data directory") as refused:
            run(served())
        assert refused.value.reason == "BUNDLE_MISSING"


def test_a_gallery_without_vectors_takes_any_bundle(site, run, tmp_path, catalog_url) -> None:
    async def opened(**places: str) -> None:
        async with site(**places):
            pass

    run(opened())
    restored, target = moved(tmp_path, catalog_url)
    assert str(restored.encoders) == "no gallery has vectors: serve it with any bundle"
    run(opened(data="restored", seed=3, **urls(target)))
