"""A body that is announced as too long is nobody's way round the gate and the audit, and what a
path names, no body renames.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.e2e.test_service_audit import bodies
from tests.e2e.test_service_keys import ON, first_key

SEARCH = "/v1/galleries/default/search"


@pytest.fixture(scope="module")
def said(
    start_service: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, int], list[dict[str, Any]]]:
    """Statuses, and what the audit says of them."""
    data = tmp_path_factory.mktemp("announced") / "data"
    keys = {scope: first_key(data, scopes=[scope]) for scope in ("search", "audit", "admin")}
    statuses = {}
    with start_service(data, **ON) as service:
        for scope in ("search", "audit"):
            connection = http.client.HTTPConnection(service.rest, timeout=120)
            connection.putrequest("POST", SEARCH)
            connection.putheader("Authorization", f"Bearer {keys[scope]}")
            connection.putheader("Content-Type", "application/json")
            connection.putheader("Content-Length", str(40_000_000))
            connection.endheaders()
            statuses[scope] = connection.getresponse().status
            connection.close()
        renamed = httpx.put(
            f"http://{service.rest}/v1/galleries/default/cameras/door/retention",
            json={"camera_id": "hall", "retention_days": 3},
            headers={"authorization": f"Bearer {keys['admin']}"},
            timeout=120,
        )
        statuses["admin"] = renamed.status_code
        assert service.stop() == 0
    return statuses, bodies(data, {})


def test_who_may_ask_is_told_of_the_length_and_who_may_not_is_not(said: Any) -> None:
    statuses, entries = said
    assert (statuses["search"], statuses["audit"]) == (413, 403)
    of_search = [each for each in entries if each["action"] == "SearchService/Search"]
    assert {each["outcome"] for each in of_search} == {"INVALID_ARGUMENT", "PERMISSION_DENIED"}
    assert len(of_search) == 2


def test_the_path_says_what_a_call_is_about(said: Any) -> None:
    statuses, entries = said
    assert statuses["admin"] in (400, 404, 422)
    of_retention = [each for each in entries if each["action"].endswith("/UpdateCameraRetention")]
    assert of_retention
    assert {each["notes"]["camera_id"] for each in of_retention} == {"door"}
    assert "hall" not in json.dumps(of_retention)
