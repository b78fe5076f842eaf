"""`resight gallery` over a stopped service: what people and programs read."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from resight.errors import DataLoss, InvalidArgument
from service.access import direct
from service.commands import gallery
from service.commands.gallery import app
from service.domain.api_key import KeyRequest
from service.settings import load_settings


def resight_gallery(*arguments: object, code: int = 0) -> str:
    done = CliRunner().invoke(app, [*map(str, arguments)])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == code, done.output
    return done.stdout


def test_people_read_what_was_done(tmp_path, place, filled, monkeypatch) -> None:
    monkeypatch.setattr(gallery, "INTERVAL", 0.0)
    here = place("here").data_dir
    filled(place("here"))
    text = resight_gallery("snapshot", "--output", tmp_path / "s", "--data", here, "--images")
    assert "23 crops" in text
    assert "23 images (0.0 MB), 0 of crops deleted meanwhile, 0 missing, 0 damaged" in text
    assert "1 bundles, 0 missing" in text
    text = resight_gallery("restore", tmp_path / "s", "--data", tmp_path / "there")
    assert "23 crops and 23 images" in text
    assert text.endswith("0 crops erased again\nserve it with the bundle of model hash-1\n")
    text = resight_gallery("verify", "--data", tmp_path / "there")
    assert text.splitlines()[0].startswith("default: 18 crops, no index files, 18 images (18 read)")
    assert text.count("nothing is wrong") == 2


def test_keys_that_came_back_are_told(tmp_path, place, filled) -> None:
    settings = place("here")
    filled(settings)
    keys = [
        direct.create(settings, KeyRequest(display_name=name, scopes=["search"])).key
        for name in ("kept", "revoked")
    ]
    resight_gallery("snapshot", "--output", tmp_path / "s", "--data", settings.data_dir)
    direct.revoke(settings, keys[1].key_id)
    text = resight_gallery("restore", tmp_path / "s", "--data", tmp_path / "there")
    assert text.splitlines()[-1].startswith("2 API keys as they were then; those revoked")
    there = direct.every(load_settings({"data_dir": tmp_path / "there"}))
    assert [key.revoke_time for key in there] == [None, None], "the next start does it"


def test_a_fault_is_exit_code_1(tmp_path, place, filled) -> None:
    here = place("here").data_dir
    filled(place("here"))
    image = next(path for path in (here / "blobs" / "site-2").rglob("*") if path.is_file())
    image.unlink()
    text = resight_gallery("verify", "--data", here, "--sample", "0", code=1)
    assert "1 IMAGE_MISSING: images that are not in the blob store; restore them" in text
    told = json.loads(resight_gallery("verify", "--data", here, "--json", code=1))
    assert told["sound"] is False
    findings = {each["gallery"]: each["findings"] for each in told["galleries"]}
    assert findings["default"] == []
    ((kind, count),) = [(each["kind"], each["count"]) for each in findings["site-2"]]
    assert (kind, count) == ("IMAGE_MISSING", 1)


def test_what_cannot_be_done_is_said(tmp_path, place, filled) -> None:
    here = place("here").data_dir
    filled(place("here"))
    with pytest.raises(InvalidArgument, match="exclude each other"):
        resight_gallery("verify", "--data", here, "--all-images", "--sample", "3")
    (tmp_path / "s.tar").write_bytes(b"no archive")
    with pytest.raises(DataLoss, match="no whole archive"):
        resight_gallery("restore", tmp_path / "s.tar", "--data", tmp_path / "there")
    assert resight_gallery("verify", "--sample", "-1", code=2) == ""
