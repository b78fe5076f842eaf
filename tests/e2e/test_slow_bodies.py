"""Bodies over REST that do not come, or too slowly, against a real service and its sockets."""

from __future__ import annotations

import hashlib
import json
import re
import select
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

SECONDS = 5.0
RATE = 100
WAIT = 180.0
JSON = "application/json"
FORM = "multipart/form-data; boundary=x"
PART = b'--x\r\ncontent-disposition: form-data; name="image"; filename="x"\r\n\r\n'
G = "/v1/galleries/default"
TEMPLATE = "/v1/galleries/{gallery}"


@dataclass(frozen=True)
class Slow:
    """A request whose body begins and never ends."""

    path: str
    kind: str
    begun: bytes
    drips: bool = True
    chunked: bool = False

    def head(self) -> bytes:
        length = "transfer-encoding: chunked" if self.chunked else "content-length: 100000"
        text = f"POST {G}/{self.path} HTTP/1.1\r\nhost: here\r\ncontent-type: {self.kind}\r\n"
        return f"{text}{length}\r\n\r\n".encode()

    def piece(self, data: bytes) -> bytes:
        return b"%x\r\n%b\r\n" % (len(data), data) if self.chunked else data


SLOW = {
    "nothing comes": Slow("track", JSON, b"", drips=False),
    "JSON": Slow("track", JSON, b"{"),
    "JSON in chunks": Slow("search-batch", JSON, b"{", chunked=True),
    "a query": Slow("search", FORM, PART),
    "a crop": Slow("crops", FORM, PART),
    "a bundle": Slow("models", FORM, PART.replace(b"image", b"bundle")),
}


@pytest.fixture(scope="module")
def impatient(
    start_service: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Any]:
    settings = {
        "RESIGHT_REST__MAX_BODY_SECONDS": str(SECONDS),
        "RESIGHT_MODELS__MIN_UPLOAD_BYTES_PER_SECOND": str(RATE),
    }
    with start_service(tmp_path_factory.mktemp("slow") / "data", **settings) as service:
        yield service


def opened(service: Any) -> socket.socket:
    host, _, port = service.rest.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=WAIT)


def rest_of(stream: socket.socket) -> bytes:
    """What comes until the service closes the connection; whoever still sends learns it roughly."""
    said = b""
    with suppress(ConnectionError):
        while more := stream.recv(65536):
            said += more
    return said


def answered(service: Any, slow: Slow) -> tuple[bytes, bytes]:
    """Head and body of all that is said to a caller who never finishes, and asks on at the end."""
    end = time.monotonic() + WAIT
    with opened(service) as stream:
        stream.sendall(slow.head() + (slow.piece(slow.begun) if slow.begun else b""))
        while not select.select([stream], [], [], 0.2)[0]:
            assert time.monotonic() < end, "nothing is said to a body that never ends"
            if slow.drips:
                with suppress(ConnectionError):  # refused just now
                    stream.sendall(slow.piece(b" "))
        with suppress(ConnectionError):  # closed already
            stream.sendall(b"GET /healthz HTTP/1.1\r\nhost: here\r\n\r\n")
        head, _, body = rest_of(stream).partition(b"\r\n\r\n")
    return head, body


def value(service: Any, metric: str) -> float:
    """A sample of /metrics; 0 where there is none."""
    text = httpx.get(f"http://{service.rest}/metrics", timeout=WAIT).text
    found = re.search(rf"^{re.escape(metric)} (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found else 0.0


def refused(service: Any, path: str) -> float:
    """How many requests of a route were answered 408."""
    labels = f'code="408",method="POST {TEMPLATE}/{path}",protocol="rest"'
    return value(service, f"resight_requests_total{{{labels}}}")


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_a_body_that_does_not_come_is_refused_and_its_connection_freed(impatient: Any) -> None:
    with ThreadPoolExecutor(len(SLOW)) as threads:
        asked = {name: threads.submit(answered, impatient, slow) for name, slow in SLOW.items()}
        told = {name: each.result() for name, each in asked.items()}
    problems = {}
    for name, (head, body) in told.items():
        assert head.startswith(b"HTTP/1.1 408 "), (name, head)
        assert b"connection: close" in head.lower(), name
        # One answer: what came later was not taken for a request.
        problems[name] = problem = json.loads(body)
        assert (problem["status"], problem["reason"]) == (408, "REQUEST_TOO_SLOW")
        assert problem["field"] == "body"
        setting = "models.min_upload_bytes_per_second" if name == "a bundle" else "5 s (rest.max"
        assert setting in problem["detail"], name
    many = Counter(slow.path for slow in SLOW.values())
    # An answer is counted once it was sent; the one that asks is in flight, too.
    until(lambda: {path: refused(impatient, path) for path in many} == many)
    until(lambda: value(impatient, 'resight_inflight_requests{protocol="rest"}') == 1)
    page = httpx.get(f"http://{impatient.rest}/v1/audit", params={"page_size": 1000}, timeout=WAIT)
    entries = [entry for entry in page.json()["entries"] if entry["outcome"] == "DEADLINE_EXCEEDED"]
    recorded = {entry["request_id"] for entry in entries}
    assert {problem["request_id"] for problem in problems.values()} <= recorded


def slowly(service: Any, path: str, request: httpx.Request, pieces: int, pause: float) -> Any:
    """The answer to a request whose body takes its time."""
    body = request.read()
    kind = request.headers["content-type"]
    head = f"POST {G}/{path} HTTP/1.1\r\nhost: here\r\nconnection: close\r\n"
    head += f"content-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n"
    size = len(body) // pieces + 1
    with opened(service) as stream:
        stream.sendall(head.encode())
        with suppress(ConnectionError):  # refused
            for start in range(0, len(body), size):
                time.sleep(pause)
                stream.sendall(body[start : start + size])
        said = rest_of(stream)
    status, _, answer = said.partition(b"\r\n\r\n")
    return int(status.split()[1]), json.loads(answer)


def test_an_upload_takes_its_time(
    impatient: Any, make_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    data = make_bundle(tmp_path / "next.tar").read_bytes()
    form = httpx.Request(
        "POST",
        "http://here/",
        files={"bundle": ("next.tar", data)},
        data={"sha256": hashlib.sha256(data).hexdigest()},
    )
    # Longer in all than anything is waited for. On a machine that stands still for seconds this
    # caller is not honest, so that they may try again.
    for _ in range(4):
        status, answer = slowly(impatient, "models", form, pieces=30, pause=SECONDS / 25)
        if status != 408:
            break
    assert (status, answer.get("state")) == (201, "candidate"), answer


def test_what_is_asked_behind_a_late_body_is_answered_in_turn(impatient: Any) -> None:
    body = b'{"camera_id": "late"}'
    head = f"POST {G}/cameras HTTP/1.1\r\nhost: here\r\ncontent-type: {JSON}\r\n"
    head += f"content-length: {len(body)}\r\n\r\n"
    behind = b"GET /healthz HTTP/1.1\r\nhost: here\r\n\r\n"
    last = f"GET {G}/cameras HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n"
    for _ in range(4):  # see above
        with opened(impatient) as stream:
            stream.sendall(head.encode() + body[:5])
            time.sleep(0.5)
            stream.sendall(body[5:] + behind + last.encode())
            said = rest_of(stream)
        if b" 408 " not in said:
            break
    assert re.findall(rb"HTTP/1\.1 (\d+)", said) == [b"201", b"200", b"200"], said
    assert said.index(b'"late"') < said.rindex(b"HTTP/1.1 200") < said.rindex(b'"late"')
