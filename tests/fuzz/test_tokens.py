"""Page tokens, cursors and credentials: damaged, and forged with a right check value."""

from __future__ import annotations

import base64
import json
from contextlib import suppress
from typing import Any
from uuid import UUID

import grpc
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resight.errors import ResightError
from resight.v1 import admin_service_pb2, gallery_service_pb2, model_service_pb2
from service.access.key_text import key_id_of
from service.domain import page
from service.retrieval import cursor
from service.transport.purpose import decoded_purpose
from tests.e2e.rpcs import RPCS, call
from tests.fuzz.conftest import GALLERY, Target, count, examples

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)
BODIES = st.one_of(
    JSON.map(lambda value: json.dumps(value).encode()),
    st.lists(st.integers(-(2**70), 2**70) | st.text(max_size=40), max_size=4).map(
        lambda value: json.dumps(value).encode()
    ),
    st.binary(max_size=60),
    st.sampled_from([b"[" * 400, b"[1e999]", b"[NaN]", b'["' + b"0" * 32 + b'"]', b"[0]", b"[-1]"]),
)


def token(check: bytes, body: bytes) -> str:
    return base64.urlsafe_b64encode(check + body).decode().rstrip("=")


@examples(1000)
@given(body=BODIES, shape=st.lists(st.sampled_from([int, str, UUID]), min_size=1, max_size=3))
def test_forged_page_tokens(body: bytes, shape: list[Any]) -> None:
    count("page tokens, forged")
    forged = token(page._check(body, "x"), body)
    try:
        position = page.decode_token(forged, listing="x", shape=shape)
    except ResightError:
        return
    assert position is not None
    for part, kind in zip(position, shape, strict=True):
        if kind is UUID:
            UUID(hex=str(part))
        else:
            assert type(part) is kind


@examples(1000)
@given(text=st.text(max_size=80) | st.text("abcXYZ019-_=", max_size=1500))
def test_page_tokens_and_cursors_of_any_text(text: str) -> None:
    count("page tokens and cursors, any text")
    for decode in (
        lambda: page.decode_token(text, listing="x"),
        lambda: cursor.decode_cursor(text, query=bytes(16), model_version="m"),
    ):
        with suppress(ResightError):
            assert (decode() is None) == (text == "")


@examples(1000)
@given(
    tail=st.binary(max_size=80),
    given_rows=st.integers(0, 2**32 - 1),
    score=st.floats(),
    count_=st.sampled_from([0, 1, 2, 255, 65535]),
    dimension=st.sampled_from([0, 1, 3, 65535]),
)
def test_forged_cursors(
    tail: bytes, given_rows: int, score: float, count_: int, dimension: int
) -> None:
    count("cursors, forged")
    query = bytes(len(cursor.digest(["q"])))
    good = cursor.encode_cursor(
        cursor.Cursor(0.5, UUID(int=1), 7, np.ones((1, 3), np.float32)),
        query=query,
        model_version="m",
    )
    raw = base64.urlsafe_b64decode(good + "=" * (-len(good) % 4))
    body = raw[len(query) :]
    head = list(cursor._HEAD.unpack_from(body))
    head[3:5] = [min(given_rows, head[3] + given_rows), score]
    head[-2:] = [count_, dimension]
    try:
        forged = cursor._HEAD.pack(*head) + tail
    except Exception:
        forged = body[: len(tail)]
    try:
        found = cursor.decode_cursor(
            token(cursor._check(forged), forged), query=query, model_version="m"
        )
        assert found is not None
        cursor.checked_vectors(found, dimension=3, at_least=1)
    except ResightError:
        pass


@examples(1000)
@given(text=st.text(max_size=100) | st.from_regex(r"rsk_[0-9a-f]{0,20}_.{0,50}"))
def test_keys_and_purposes_of_any_text(text: str) -> None:
    count("API keys and purposes, any text")
    found = key_id_of(text)
    assert found is None or len(found) == 16
    with suppress(ResightError):
        decoded_purpose(text)


LISTINGS = {
    "GalleryService/ListCameras": (gallery_service_pb2.ListCamerasRequest, "cameras/default"),
    "ModelService/ListModels": (model_service_pb2.ListModelsRequest, "models/default"),
    "AdminService/ListErasures": (admin_service_pb2.ListErasuresRequest, "erasures/default"),
}


@pytest.mark.parametrize("name", LISTINGS)
def test_forged_tokens_over_the_api(target: Target, name: str) -> None:
    kind, listing = LISTINGS[name]
    assert GALLERY in listing
    with grpc.insecure_channel(target.service.grpc) as channel:

        @examples(60)
        @given(body=BODIES)
        def one(body: bytes) -> None:
            count("page tokens, forged, over the API")
            request = kind(page_token=token(page._check(body, listing), body))
            answer = call(
                channel,
                RPCS[name],
                [request.SerializeToString()],
                metadata=tuple(target.headers.items()),
            )
            assert answer.code in (grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT), (
                answer.code,
                answer.details,
            )

        one()
