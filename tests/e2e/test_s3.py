"""Images, checkpoints and restores on an object store: a real service, s3fs, and moto for S3.

What is not there is looked for in the bucket itself, past the service and its driver.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import create_engine, text

from service.domain.identifier import image_key
from tests.e2e.conftest import RESIGHT
from tests.e2e.object_store import ObjectStore, running_object_store

G = "/v1/galleries/default"
SECONDS = 120
NAMES = count()

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    with running_object_store(tmp_path_factory.mktemp("moto")) as running:
        yield running


@pytest.fixture
def bucket(store: ObjectStore) -> str:
    """The name of a new one."""
    name = f"crops-{next(NAMES)}"
    store.make(name)
    return name


@contextmanager
def client_of(service: Any) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://{service.rest}", timeout=120) as client:
        yield client


def resight(
    *arguments: object, environment: dict[str, str], code: int = 0
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [RESIGHT, *map(str, arguments)],
        env=os.environ | environment, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    return done


def put(client: httpx.Client, number: int, image: bytes) -> httpx.Response:
    return client.post(
        f"{G}/crops",
        files={"image": ("crop.jpg", image)},
        data={"camera_id": "c1", "capture_time": f"2026-02-01T00:{number:02d}:00Z"},
    )


def filled(client: httpx.Client, images: list[bytes]) -> list[str]:
    """The ids of crops with these images."""
    client.post(f"{G}/cameras", json={"camera_id": "c1"}).raise_for_status()
    answers = [put(client, number, image) for number, image in enumerate(images)]
    return [str(answer.raise_for_status().json()["crop_id"]) for answer in answers]


def eventually(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not what():
        assert time.monotonic() < deadline, "it does not come to pass"
        time.sleep(0.2)


def erased(client: httpx.Client, crops: list[str]) -> tuple[str, httpx.Response]:
    """The path of an erasure of these crops, and the answer to its confirmation."""
    wanted = {"subject": {"crop_ids": crops}, "reason": "asked for"}
    made = client.post(f"{G}/erasures", json=wanted).raise_for_status().json()
    path = f"{G}/erasures/{made['erasure_id']}"
    return path, client.post(f"{path}/confirm", json={"crops": len(crops)})


def test_images_live_in_the_bucket_and_what_is_erased_is_gone_from_it(
    store: ObjectStore, bucket: str, start_service: Any, tmp_path: Path, make_jpeg: Any
) -> None:
    images = [make_jpeg(number) for number in range(6)]
    environment = {**store.environment, "RESIGHT_BLOB_URL": f"s3://{bucket}/site"}
    with start_service(tmp_path / "data", **environment) as service, client_of(service) as client:
        crops = filled(client, images)
        held = store.content(bucket)
        assert sorted(held.values()) == sorted(images)
        assert all(key.startswith("site/default/") for key in held)
        for crop, image in zip(crops, images, strict=True):
            assert client.get(f"{G}/crops/{crop}/image").content == image
        found = client.post(f"{G}/search", json={"crop_id": crops[0], "top_k": 10})
        assert len(found.raise_for_status().json()["matches"]) == 5
        client.delete(f"{G}/crops/{crops[0]}").raise_for_status()
        assert sorted(store.content(bucket).values()) == sorted(images[1:])
        _, answer = erased(client, crops[1:4])
        done = answer.raise_for_status().json()
        assert (done["state"], done["removed"]) == ("done", 3)
        told = json.loads(done["receipt"])["receipt"]
        assert sorted(told["crops"]["removed"]["ids"]) == sorted(crops[1:4])
        assert sorted(store.content(bucket).values()) == sorted(images[4:])
        listed = client.post(f"{G}/search", json={"crop_id": crops[4], "top_k": 10}).json()
        assert [match["crop"]["crop_id"] for match in listed["matches"]] == [crops[5]]
        # What a crash has left there is seen and removed.
        store.put(bucket, f"site/{image_key('default', uuid4())}", b"left behind")
        assert service.stop() == 0
    with start_service(tmp_path / "data", **environment) as service, client_of(service) as client:
        eventually(lambda: sorted(store.content(bucket).values()) == sorted(images[4:]))
        assert client.get(f"{G}/crops/{crops[4]}/image").content == images[4]
    assert not [path for path in (tmp_path / "data" / "blobs").rglob("*") if path.is_file()]


def test_a_bucket_that_is_away_for_a_while_loses_nothing(
    store: ObjectStore, bucket: str, start_service: Any, tmp_path: Path, make_jpeg: Any
) -> None:
    images = [make_jpeg(number) for number in range(6)]
    environment = {**store.environment, "RESIGHT_BLOB_URL": f"s3://{bucket}"}
    with start_service(tmp_path / "data", **environment) as service, client_of(service) as client:
        crops = filled(client, images[:5])
        store.road.cut()
        try:
            refused = put(client, 9, images[5])
            assert refused.status_code == 503, refused.text
            assert refused.json()["reason"] == "BLOBS_UNAVAILABLE"
            unread = client.get(f"{G}/crops/{crops[0]}/image")
            assert (unread.status_code, unread.json()["reason"]) == (503, "BLOBS_UNAVAILABLE")
            found = client.post(f"{G}/search", json={"crop_id": crops[0], "top_k": 10})
            assert len(found.raise_for_status().json()["matches"]) == 4
            deleted = client.delete(f"{G}/crops/{crops[0]}")
            assert (deleted.status_code, deleted.json()["reason"]) == (503, "IMAGE_REMOVAL_PENDING")
            path, answer = erased(client, crops[1:3])
            assert (answer.status_code, answer.json()["reason"]) == (503, "IMAGE_REMOVAL_PENDING")
            running = client.get(path).raise_for_status().json()
            assert (running["state"], running.get("receipt", "")) == ("running", "")
            # No longer found, though their bytes are still there.
            assert [client.get(f"{G}/crops/{crop}").status_code for crop in crops[:4]] == [
                404, 404, 404, 200,
            ]  # fmt: skip
        finally:
            store.road.mend()
        assert sorted(store.content(bucket).values()) == sorted(images[:5])
        eventually(lambda: put(client, 9, images[5]).is_success)
        assert client.get(f"{G}/crops/{crops[3]}/image").content == images[3]
        assert client.post(f"{path}/confirm", json={"crops": 2}).json()["state"] == "done"
        assert client.get(path).json()["receipt"]
        assert images[1] not in store.content(bucket).values()
        assert service.stop() == 0
    with start_service(tmp_path / "data", **environment) as service:
        assert sorted(store.content(bucket).values()) == sorted(images[3:])
        with client_of(service) as client:
            assert client.get(f"{G}/crops/{crops[3]}/image").content == images[3]


def test_checkpoints_are_written_once_and_verified_from_the_bucket(
    store: ObjectStore, start_service: Any, tmp_path: Path, make_jpeg: Any
) -> None:
    store.make("anchors", versions=True)
    data, url = tmp_path / "data", "s3://anchors/site"
    environment = {**store.environment, "RESIGHT_AUDIT__ANCHOR_URL": url}
    for number in range(2):
        with start_service(data, RESIGHT_AUDIT__CHECKPOINT_ENTRIES="3", **environment) as service:
            with client_of(service) as client:
                if not number:
                    filled(client, [make_jpeg(0)])
                for _ in range(5):
                    client.get(f"{G}/crops").raise_for_status()
            assert service.stop() == 0
        resight("keys", "create", "x", "--scope", "search", "--data", data, environment=environment)
    written = store.versions("anchors")
    assert len(written) == len(set(written)) >= 8
    verify = ["audit", "verify", "--data", data, "--anchors", url, "--json"]
    verdict = json.loads(resight(*verify, environment=environment).stdout)
    assert (verdict["sound"], verdict["anchors"]) == (True, len(written))
    assert verdict["checkpoints"] == len(written)
    # The whole of a chain taken away: the catalog alone does not miss the newest.
    engine = create_engine(f"sqlite:///{data}/catalog.sqlite")
    with engine.begin() as connection:
        newest = connection.execute(
            text("SELECT chain_id FROM audit_entries ORDER BY record_time DESC LIMIT 1")
        ).scalar_one()
        for table in ("audit_entries", "audit_checkpoints"):
            gone = text(f"DELETE FROM {table} WHERE chain_id = :chain")  # noqa: S608
            connection.execute(gone, {"chain": newest})
    engine.dispose()
    alone = json.loads(resight(*verify[:4], "--json", environment=environment).stdout)
    assert alone["sound"]
    verdict = json.loads(resight(*verify, environment=environment, code=1).stdout)
    assert {fault["chain_id"] for fault in verdict["faults"]} == {bytes(newest).hex()}
    # An altered anchor is named, too.
    key, content = next(iter(store.content("anchors").items()))
    store.put("anchors", key, content.replace(b'"sequence":', b'"sequence": 1'))
    altered = json.loads(resight(*verify, environment=environment, code=1).stdout)
    assert len(altered["faults"]) > len(verdict["faults"])


def test_a_snapshot_of_one_bucket_is_restored_into_another(
    store: ObjectStore, bucket: str, start_service: Any, tmp_path: Path, make_jpeg: Any
) -> None:
    images = [make_jpeg(number) for number in range(5)]
    here = {**store.environment, "RESIGHT_BLOB_URL": f"s3://{bucket}/here"}
    there = {**store.environment, "RESIGHT_BLOB_URL": f"s3://{bucket}/there"}
    ledger = {"RESIGHT_ERASURES_DIR": str(tmp_path / "ledger")}
    with start_service(tmp_path / "a", **here, **ledger) as service, client_of(service) as client:
        crops = filled(client, images)
        resight(
            "gallery", "snapshot", "--images", "--output", tmp_path / "s.tar",
            "--data", tmp_path / "a", environment=here | ledger,
        )  # fmt: skip
        erased(client, crops[:1])[1].raise_for_status()
        assert service.stop() == 0
    restored = resight(
        "gallery", "restore", tmp_path / "s.tar", "--data", tmp_path / "b",
        environment=there | ledger,
    )  # fmt: skip
    assert "5 crops" not in restored.stdout
    assert "1 crops erased again" in restored.stdout
    held = store.content(bucket)
    for place in ("here", "there"):
        found = [data for key, data in held.items() if key.startswith(f"{place}/default/")]
        assert sorted(found) == sorted(images[1:])
    with start_service(tmp_path / "b", **there, **ledger) as service, client_of(service) as client:
        assert client.get(f"{G}/crops/{crops[1]}/image").content == images[1]
        verified = resight("gallery", "verify", "--all-images", "--target", service.grpc,
                           environment=there)  # fmt: skip
        assert "4 images (4 read)" in verified.stdout


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("no bucket", "bucket does not exist"),
        ("wrong key", "Access Key Id you provided does not exist"),
        ("no key", "Unable to locate credentials"),
        ("nobody there", "Could not connect"),
    ],
)
def test_a_start_without_its_bucket_says_which_setting(
    store: ObjectStore, bucket: str, tiny_bundle: Path, tmp_path: Path, what: str, said: str
) -> None:
    place = "missing" if what == "no bucket" else bucket
    environment = {**store.environment, "RESIGHT_BLOB_URL": f"s3://{place}/site"}
    if what == "no key":
        environment |= {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}
    if what == "nobody there":
        # Port 1 needs privileges that nobody here has given away.
        environment["FSSPEC_S3_ENDPOINT_URL"] = "http://127.0.0.1:1"
    if what == "wrong key":
        store.ask_for_credentials(after=0)
    try:
        done = resight(
            "serve", "--bundle", tiny_bundle, "--data", tmp_path / "data", "--grpc-port", "0",
            "--rest-port", "0", environment=environment, code=1,
        )  # fmt: skip
    finally:
        if what == "wrong key":
            store.ask_for_credentials(after=None)
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    [line] = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert line.startswith(f"error: blob_url: s3://{place}/site cannot be used (")
    assert said in line
    assert "RESIGHT_BLOB_URL" in line
    assert not (tmp_path / "data" / "catalog.sqlite").exists()
