"""Callers who hang up in the middle of what they send: no fault of the service, and no noise."""

from __future__ import annotations

import re
import socket
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

KINDS = {
    "search": "multipart/form-data; boundary=x",
    "crops": "multipart/form-data; boundary=x",
    "track": "application/json",
}


@pytest.mark.parametrize("half", [b"", b"--x\r\ncontent-disposition: form-data; na"])
def test_a_caller_who_hangs_up_is_counted_as_one(
    start_service: Any, tmp_path: Path, half: bytes
) -> None:
    with start_service(tmp_path / "data") as service:
        host, _, port = service.rest.rpartition(":")
        for name, kind in KINDS.items():
            head = f"POST /v1/galleries/default/{name} HTTP/1.1\r\nhost: {service.rest}\r\n"
            head += f"content-type: {kind}\r\ncontent-length: 100000\r\n\r\n"
            with socket.create_connection((host, int(port)), timeout=120) as raw:
                raw.sendall(head.encode() + half)
        counted: dict[str, set[str]] = {}
        deadline = time.monotonic() + 60
        while counted.keys() < KINDS.keys():
            assert time.monotonic() < deadline, counted
            text = httpx.get(f"http://{service.rest}/metrics", timeout=120).text
            counted = codes(text)
            time.sleep(0.1)
        assert counted == {name: {"499"} for name in KINDS}
        assert httpx.get(f"http://{service.rest}/readyz", timeout=120).status_code == 200
    assert '"level": "error"' not in service.log.read_text()


def codes(text: str) -> dict[str, set[str]]:
    """Statuses that calls of each route were counted with."""
    made: dict[str, set[str]] = {}
    for labels in re.findall(r"^resight_requests_total\{(.*)\} [1-9]", text, re.MULTILINE):
        told = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        name = told["method"].rpartition("/")[2]
        if name in KINDS:
            made.setdefault(name, set()).add(told["code"])
    return made
