"""A request that is begun with a key and held open does nothing once that key is revoked: else
whoever stole one would keep requests for new keys open until it is.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from resight.client.connection import connect
from resight.client.error_info import reason_of
from resight.errors import CredentialsLapsed
from resight.v1 import admin_service_pb2 as messages
from service.access import direct
from service.access.key_text import key_id_of
from service.domain.api_key import KeyRequest
from service.domain.principal import SCOPES
from service.settings import load_settings

OPERATOR = "0f9c2b7a41d8e6350f9c2b7a41d8e635"
REFRESH = 0.5
WAIT = 120.0


def over_rest(address: str, key: str, held: threading.Event) -> str:
    body = json.dumps({"display_name": "for later", "scopes": ["admin"]}).encode()

    def late() -> Iterator[bytes]:
        yield body[:5]
        held.wait(WAIT)
        yield body[5:]

    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    url = f"http://{address}/v1/keys"
    answer = httpx.post(url, content=late(), headers=headers, timeout=2 * WAIT)
    return str(answer.json().get("reason"))


def over_grpc(address: str, key: str, held: threading.Event) -> str:
    def late() -> Iterator[messages.CreateApiKeyRequest]:
        held.wait(WAIT)
        asked = messages.ApiKey(display_name="for later", scopes=[messages.SCOPE_ADMIN])
        yield messages.CreateApiKeyRequest(api_key=asked)

    with grpc.insecure_channel(address) as channel:
        # Headers go before the message only where a stream of messages may follow.
        create = channel.stream_unary(
            "/resight.v1.AdminService/CreateApiKey",
            request_serializer=messages.CreateApiKeyRequest.SerializeToString,
            response_deserializer=messages.CreateApiKeyResponse.FromString,
        )
        try:
            create(late(), metadata=(("authorization", f"Bearer {key}"),), timeout=2 * WAIT)
        except grpc.RpcError as error:
            return reason_of(error)
    return "made"


def accepted(address: str) -> bool:
    """Whether a key of the catalog was let in."""
    shown = {"authorization": f"Bearer {OPERATOR}"}
    text = httpx.get(f"http://{address}/metrics", headers=shown, timeout=WAIT).text
    return 'resight_authentications_total{kind="key",outcome="accepted"} 1.0' in text


@pytest.mark.parametrize("ask", [over_grpc, over_rest])
def test_a_body_held_back_is_worth_nothing_after_a_revocation(
    start_service: Callable[..., Any], tmp_path: Path, ask: Callable[..., str]
) -> None:
    data, file = tmp_path / "data", tmp_path / "operator"
    file.write_text(OPERATOR)
    file.chmod(0o600)
    stolen = direct.create(load_settings({"data_dir": data}), KeyRequest("stolen", SCOPES)).text
    held = threading.Event()
    settings = {
        "RESIGHT_ACCESS__AUTHENTICATION": "on",
        "RESIGHT_ACCESS__BOOTSTRAP_KEY_FILE": str(file),
        "RESIGHT_ACCESS__REFRESH_SECONDS": str(REFRESH),
    }
    shown = [("authorization", f"Bearer {OPERATOR}")]
    with (
        start_service(data, **settings) as service,
        connect(service.grpc, metadata=lambda: shown) as connection,
        ThreadPoolExecutor(1) as threads,
    ):
        address = service.grpc if ask is over_grpc else service.rest
        waiting = threads.submit(ask, address, stolen, held)
        try:
            deadline = time.monotonic() + WAIT
            while not accepted(service.rest):
                assert time.monotonic() < deadline
                time.sleep(0.05)
            key_id = key_id_of(stolen) or ""
            connection.admin.RevokeApiKey(messages.RevokeApiKeyRequest(key_id=key_id))
            time.sleep(2 * REFRESH)  # after which it is looked again
        finally:
            held.set()
        assert waiting.result() == CredentialsLapsed.reason
        listed = connection.admin.ListApiKeys(messages.ListApiKeysRequest()).api_keys
        assert [each.key_id for each in listed] == [key_id]
