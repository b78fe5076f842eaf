"""Index files of a retired model: they hold vectors that erasures do not reach, and must go."""

from __future__ import annotations

import shutil
from pathlib import Path

from service.application.index_keeper import index_folder
from service.catalog import lifecycle
from service.catalog.model_states import Actor, Note
from tests.service.application.lifecycle.conftest import NOON, Site


async def grown(it: Site) -> tuple[Path, Path]:
    """Two models with files; the folders of the first and the second."""
    application = it.application
    await it.ingest(range(12))
    await it.promoted(2)
    gallery = application._galleries.get("")
    await application.index_files.write(gallery)
    root = application.index_files._root
    live, previous = (index_folder(root, each.record).path for each in gallery.models.fed)
    assert any(live.iterdir())
    assert any(previous.iterdir())
    return previous, live


async def retired_elsewhere(it: Site) -> None:
    """What another replica's retiring does to this process: a change in the log."""
    application = it.application
    gallery = application._galleries.get("")
    note = Note(Actor.CALLER, "", NOON)
    await application._catalog.change(
        lambda connection: lifecycle.retire(connection, gallery.row, it.versions[1], note=note),
        committed=lambda _: gallery.follow(),
    )


def test_files_of_a_model_that_another_replica_retired_go_without_further_changes(
    site, run
) -> None:
    async def work() -> None:
        async with site() as it:
            previous, live = await grown(it)
            await retired_elsewhere(it)
            await it.until(lambda: not previous.exists())
            assert any(live.iterdir())
            assert await it.check() == 2

    run(work())


def test_files_that_a_crash_left_of_a_retired_model_go_after_the_next_start(
    site, run, tmp_path
) -> None:
    left = tmp_path / "left"

    async def work() -> None:
        async with site() as it:
            previous, live = await grown(it)
            shutil.copytree(previous, left)
            await it.application.models.lifecycle.retire("", it.versions[1])
            assert not previous.exists()
        # As if the process had been killed between the retiring's commit and this removal.
        shutil.copytree(left, previous)
        async with site(crops=it.crops) as again:
            again.versions |= it.versions
            await again.until(lambda: not previous.exists())
            assert any(live.iterdir())
            assert await again.check() == 2

    run(work())
