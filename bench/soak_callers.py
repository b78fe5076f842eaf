"""Callers of one guarded service for ``bench.soak``: what each asks for, well or badly.

A caller makes one call and says what came of it. Crops are ingested for as long as there are fewer
than ``crops``, and deleted beyond, so that what grows is not the gallery.
"""

from __future__ import annotations

import http.client
import json
import random
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import grpc
import jwt

from bench.lifecycle_load import image
from resight.v1 import admin_service_pb2 as admin
from resight.v1 import gallery_service_pb2 as gallery
from resight.v1.admin_service_pb2_grpc import AdminServiceStub
from resight.v1.gallery_service_pb2_grpc import GalleryServiceStub
from resight.v1.search_service_pb2 import SearchRequest
from resight.v1.search_service_pb2_grpc import SearchServiceStub
from resight.v1.types_pb2 import Camera, Crop

__all__ = ["AUDIENCE", "CALLERS", "ISSUER", "KEY_ID", "Site"]

ISSUER, AUDIENCE, KEY_ID = "https://id.example.org", "resight", "soak"
CAMERAS = [f"camera-{number}" for number in range(12)]
START = datetime(2026, 1, 1, tzinfo=UTC)
SECONDS = 30.0


@dataclass
class Site:
    """What callers share.

    Args:
        target, rest: ``host:port`` of the gRPC and the REST listener.
        key: Of an administrator.
        signer: Private key, PEM, of the tokens' issuer.
        principals: How many subjects tokens are about.
        crops: The gallery is kept at this size.
    """

    target: str
    rest: str
    key: str
    signer: str
    principals: int
    crops: int
    stored: deque[str] = field(default_factory=deque)
    next: int = 0

    def token(self, rng: random.Random, *, expired: bool = False, subject: str = "") -> str:
        """Of one of the principals, or of a subject."""
        now = int(time.time())
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": subject or f"guard-{rng.randrange(self.principals)}",
            "exp": now - 3600 if expired else now + 600,
            "resight": {"scopes": ["search"]},
        }
        return jwt.encode(claims, self.signer, algorithm="ES256", headers={"kid": KEY_ID})

    def channel(self) -> grpc.Channel:
        """A connection of its own."""
        return grpc.insecure_channel(self.target, options=[("grpc.use_local_subchannel_pool", 1)])


Caller = Callable[[Site, grpc.Channel, random.Random], str]


def search_by_image(site: Site, channel: grpc.Channel, rng: random.Random) -> str:
    """By an image, over gRPC, of some principal, for some purpose."""
    request = SearchRequest(image=image(rng.randrange(5000)), top_k=5)
    return _search(site, channel, rng, request)


def search_by_crop(site: Site, channel: grpc.Channel, rng: random.Random) -> str:
    """By a stored crop, which may have been deleted meanwhile."""
    if not site.stored:
        return "nothing stored"
    return _search(site, channel, rng, SearchRequest(crop_id=rng.choice(list(site.stored)[:200])))


def search_over_rest(site: Site, _channel: grpc.Channel, rng: random.Random) -> str:
    """By an image, over REST, on a connection of its own."""
    headers = {"authorization": f"Bearer {site.token(rng)}"}
    return _posted(site, headers, image(rng.randrange(5000)))


def ingest(site: Site, channel: grpc.Channel, rng: random.Random) -> str:
    """A stream of twenty crops."""
    if len(site.stored) >= site.crops:
        return "full"

    def crops() -> Iterator[gallery.IngestCropsRequest]:
        for sequence in range(20):
            crop = Crop(camera_id=rng.choice(CAMERAS), track_id=f"t{site.next // 5}")
            crop.capture_time.FromDatetime(START + timedelta(seconds=site.next))
            site.next += 1
            picture = image(rng.randrange(1 << 30))
            yield gallery.IngestCropsRequest(sequence=sequence, crop=crop, image=picture)

    answers = GalleryServiceStub(channel).IngestCrops(crops(), metadata=_own(site), timeout=SECONDS)
    outcomes = set()
    for answer in answers:
        outcomes.add(gallery.IngestCropsResponse.Outcome.Name(answer.outcome))
        if answer.outcome == gallery.IngestCropsResponse.OUTCOME_ACCEPTED:
            site.stored.append(answer.crop_id)
    return "+".join(sorted(outcomes))


def delete(site: Site, channel: grpc.Channel, _: random.Random) -> str:
    """The oldest crop."""
    if len(site.stored) < site.crops * 0.9:
        return "few"
    request = gallery.DeleteCropRequest(crop_id=site.stored.popleft())
    GalleryServiceStub(channel).DeleteCrop(request, metadata=_own(site), timeout=SECONDS)
    return "OK"


def erase(site: Site, channel: grpc.Channel, _: random.Random) -> str:
    """The three oldest crops: planned, confirmed."""
    if len(site.stored) < site.crops * 0.9:
        return "few"
    stub, own = AdminServiceStub(channel), _own(site)
    chosen = [site.stored.popleft() for _ in range(3)]
    subject = admin.ErasureSubject(crops=admin.CropList(crop_ids=chosen))
    asked = admin.CreateErasureRequest(subject=subject, reason="soak")
    made = stub.CreateErasure(asked, metadata=own, timeout=SECONDS).erasure
    told = admin.ConfirmErasureRequest(erasure_id=made.erasure_id, crops=made.crops)
    stub.ConfirmErasure(told, metadata=own, timeout=SECONDS)
    return "OK"


def wrong_key(site: Site, _channel: grpc.Channel, rng: random.Random) -> str:
    """From an address of loopback that nobody else has, with a key that there is not."""
    address = f"127.{rng.randrange(1, 255)}.{rng.randrange(255)}.{rng.randrange(1, 255)}"
    key = f"rsk_{uuid4().hex[:12]}_{uuid4().hex}{uuid4().hex}"
    return _posted(site, {"authorization": f"Bearer {key}"}, b"x", source=address)


def expired_token(site: Site, channel: grpc.Channel, rng: random.Random) -> str:
    """Of a subject that nobody ever was."""
    token = site.token(rng, expired=True, subject=uuid4().hex)
    SearchServiceStub(channel).Search(
        SearchRequest(image=image(1)), metadata=_bearer(token), timeout=SECONDS
    )
    return "OK"


def cancelled(site: Site, channel: grpc.Channel, rng: random.Random) -> str:
    """Within a hundredth of a second."""
    request = SearchRequest(image=image(rng.randrange(5000)))
    call = SearchServiceStub(channel).Search.future(request, metadata=_bearer(site.token(rng)))
    time.sleep(rng.random() / 100)
    call.cancel()  # type: ignore[no-untyped-call]
    return "cancelled" if call.cancelled() else "answered before"


def hang_up(site: Site, _channel: grpc.Channel, rng: random.Random) -> str:
    """In the middle of a REST call's body."""
    host, port = site.rest.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=SECONDS) as raw:
        head = f"POST /v1/galleries/default/search HTTP/1.1\r\nhost: {site.rest}\r\n"
        head += f"authorization: Bearer {site.token(rng)}\r\ncontent-length: 100000\r\n"
        raw.sendall((head + "content-type: multipart/form-data; boundary=x\r\n\r\n--x").encode())
        time.sleep(rng.random() / 20)
    return "hung up"


def drop_stream(site: Site, _channel: grpc.Channel, rng: random.Random) -> str:
    """An ingest stream whose connection goes away after its first answers."""
    channel = site.channel()

    def endless() -> Iterator[gallery.IngestCropsRequest]:
        for sequence in range(1000):
            # No such camera: each is rejected, and nothing is stored.
            crop = Crop(camera_id="nowhere")
            crop.capture_time.FromDatetime(START)
            yield gallery.IngestCropsRequest(sequence=sequence, crop=crop, image=image(sequence))
            time.sleep(0.01)

    answers = GalleryServiceStub(channel).IngestCrops(endless(), metadata=_own(site))
    enough = rng.randrange(1, 5)
    for count, _answer in enumerate(answers, 1):
        if count == enough:
            break
    channel.close()
    return "dropped"


def verify_audit(site: Site, channel: grpc.Channel, _: random.Random) -> str:
    """Every entry, and the newest listed."""
    stub, own = AdminServiceStub(channel), _own(site)
    answer = stub.VerifyAudit(admin.VerifyAuditRequest(), metadata=own, timeout=120)
    stub.ListAuditEntries(admin.ListAuditEntriesRequest(), metadata=own, timeout=SECONDS)
    return f"{len(answer.faults)} faults"


def register(site: Site, channel: grpc.Channel) -> None:
    """Make the cameras."""
    stub = GalleryServiceStub(channel)
    for name in CAMERAS:
        request = gallery.CreateCameraRequest(camera=Camera(camera_id=name))
        stub.CreateCamera(request, metadata=_own(site), timeout=SECONDS)


# Of each: how many at a time, and the seconds each waits between two calls.
CALLERS: dict[str, tuple[Caller, int, float]] = {
    "search by image": (search_by_image, 3, 0.05),
    "search by stored crop": (search_by_crop, 2, 0.05),
    "search over REST": (search_over_rest, 1, 0.1),
    "ingest stream": (ingest, 1, 0.5),
    "delete": (delete, 1, 0.1),
    "erasure": (erase, 1, 1.0),
    "wrong key": (wrong_key, 1, 0.05),
    "expired token": (expired_token, 1, 0.2),
    "cancelled": (cancelled, 1, 0.05),
    "hang up": (hang_up, 1, 0.1),
    "dropped stream": (drop_stream, 1, 0.5),
    "audit verify": (verify_audit, 1, 60.0),
}


def _search(site: Site, channel: grpc.Channel, rng: random.Random, request: SearchRequest) -> str:
    purpose = ("resight-purpose", f"case%20{rng.randrange(10**6)}")
    metadata = (*_bearer(site.token(rng)), purpose)
    SearchServiceStub(channel).Search(request, metadata=metadata, timeout=SECONDS)
    return "OK"


def _own(site: Site) -> tuple[tuple[str, str], ...]:
    return _bearer(site.key)


def _bearer(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),)


def _posted(site: Site, headers: dict[str, str], picture: bytes, source: str = "") -> str:
    host, port = site.rest.rsplit(":", 1)
    given: Any = (source, 0) if source else None
    connection = http.client.HTTPConnection(host, int(port), timeout=SECONDS, source_address=given)
    part = b'--x\r\ncontent-disposition: form-data; name="image"; filename="q"\r\n\r\n'
    body = part + picture + b"\r\n--x--\r\n"
    kind = {"content-type": "multipart/form-data; boundary=x"}
    try:
        connection.request("POST", "/v1/galleries/default/search", body, headers | kind)
        answer = connection.getresponse()
        told = answer.read()
    finally:
        connection.close()
    return str(answer.status) if answer.status != 200 else f"OK{'' if json.loads(told) else ' ?'}"
