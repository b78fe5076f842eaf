"""The HTML report of a real, tiny run, read back with a parser."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from adapt.commands import app
from adapt.report.night import ReportSettings, write_report
from adapt.training.config import RunConfig
from adapt.training.run import adapt
from resight.errors import NotFound

MakeCrops = Callable[..., Path]


class Page(HTMLParser):
    """Images, text and references of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.images: list[bytes] = []
        self.outside: list[str] = []
        self.tags: set[str] = set()
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            if name in ("src", "href") and value:
                if value.startswith("data:image/"):
                    self.images.append(base64.b64decode(value.partition("base64,")[2]))
                else:
                    self.outside.append(value)

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def site(make_crops: MakeCrops, tmp_path: Path) -> tuple[Path, Path, Path]:
    """Crops, the bundle before, and the run after."""
    crops = make_crops(identities=12, each=8, cameras=2, noise=40)
    settings = {
        "backbone": "timm:test_efficientnet", "init": "random", "height": 32, "width": 16,
        "p": 4, "k": 4, "epochs": 2, "iterations": 4, "k1": 12, "k2": 3, "device": "cpu",
        "pad": 2, "threads": 1,
    }  # fmt: skip
    before = adapt(crops, tmp_path / "before", RunConfig.model_validate(settings | {"epochs": 0}))
    after = adapt(crops, tmp_path / "after", RunConfig.model_validate(settings))
    return crops, before.directory.bundle, after.directory.path


def test_the_page_shows_run_cameras_maps_and_crops(
    site: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    crops, live, run = site
    verdict = tmp_path / "verdict.json"
    verdict.write_text(
        json.dumps({"passed": False, "score": 0.25, "reasons": ["<b>mixing</b> fell"]})
    )
    result = CliRunner().invoke(
        app,
        ["report", "--run", str(run), "--live", str(live), "--crops", str(crops),
         "--verdict", str(verdict), "--json"],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    path = Path(json.loads(result.stdout)["report"])
    assert path == run / "report.html"
    page = Page(path.read_text())
    summary = json.loads((run / "summary.json").read_text())
    assert summary["run_id"] in page.text
    assert "96 crops used" in page.text
    # What a name or a reason holds is text, never markup.
    assert "<b>mixing</b> fell" in page.text
    assert "b" not in page.tags
    assert not page.outside, "a page that loads nothing from elsewhere"
    assert "script" not in page.tags
    sizes = [Image.open(io.BytesIO(data)).size for data in page.images]
    strips = [size for size in sizes if size[1] == 64]
    settings = ReportSettings()
    assert len(sizes) - len(strips) == 2, "the course and the map"
    assert len(strips) >= 2 * settings.sheets


def test_no_crop_is_shown_when_images_are_off(
    site: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    crops, live, run = site
    output = tmp_path / "page.html"
    write_report(run, live=live, crops=crops, output=output, settings=ReportSettings(images=False))
    page = Page(output.read_text())
    assert all(Image.open(io.BytesIO(data)).size[1] != 64 for data in page.images)
    assert "images are turned off" in page.text
    assert "has not judged" in page.text


def test_an_unfinished_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no finished run"):
        write_report(tmp_path, live=tmp_path, crops=tmp_path, output=tmp_path / "page.html")
