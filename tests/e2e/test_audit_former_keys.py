"""Whoever shows a key that was revoked or has expired is named in the audit; no one else is."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx

from resight.v1.admin_service_pb2 import RevokeApiKeyRequest
from tests.e2e.test_service_audit import bodies
from tests.e2e.test_service_keys import ON, connected, first_key, works

DEADLINE = 120.0


def id_of(key: str) -> str:
    return key.split("_")[1]


def tried(rest: str, key: str) -> None:
    answer = httpx.post(
        f"http://{rest}/v1/galleries/default/search",
        headers={"authorization": f"Bearer {key}"},
        json={"crop_id": "x"},
        timeout=DEADLINE,
    )
    assert answer.status_code == 401
    assert answer.json()["reason"] == "CREDENTIALS_INVALID"


def test_a_key_that_held_once_is_named_to_whoever_shows_all_of_it(
    start_service: Callable[..., Any], tmp_path: Path
) -> None:
    data = tmp_path / "data"
    admin, stolen = first_key(data), first_key(data)
    brief = first_key(data, expire_time=datetime.now(UTC) + timedelta(seconds=2))
    guessed = f"rsk_{id_of(stolen)}_{'A' * 43}"
    with start_service(data, **ON) as service:
        with connected(service.grpc, admin) as connection:
            connection.admin.RevokeApiKey(RevokeApiKeyRequest(key_id=id_of(stolen)))
        begun = time.monotonic()
        while works(service.grpc, brief) or works(service.grpc, stolen):
            assert time.monotonic() < begun + DEADLINE
            time.sleep(0.1)
        for key in (stolen, brief, guessed, "rsk_nothing"):
            tried(service.rest, key)
        # A key that holds, in the wrong place, is nobody's former one.
        basic = {"authorization": f"Basic {admin}"}
        url = f"http://{service.rest}/v1/galleries/default/stats"
        assert httpx.get(url, headers=basic, timeout=DEADLINE).status_code == 401
        assert service.stop() == 0
    denied = [each for each in bodies(data, {}) if each["action"] == "audit/denied"]
    assert {each["outcome"] for each in denied} == {"UNAUTHENTICATED"}
    held = {f"key:{id_of(key)}" for key in (stolen, brief)}
    by_protocol = {
        protocol: {each["principal"] for each in denied if each["protocol"] == protocol}
        for protocol in ("grpc", "rest")
    }
    assert by_protocol == {"grpc": held, "rest": held | {""}}
    methods = {(each["protocol"], each["method"]) for each in denied}
    assert methods - {("grpc", ""), ("rest", "")} == {
        ("grpc", "GalleryService/GetGalleryStats"),
        ("rest", "SearchService/Search"),
    }
    said = str(denied)
    assert not [key for key in (stolen, brief, guessed) if key.split("_", 2)[2] in said]
