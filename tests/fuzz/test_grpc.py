"""Every RPC with generated messages and bytes, against a real service."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from tests.e2e.rpcs import RPCS, Answer, Rpc, call
from tests.fuzz.conftest import Target, count, examples
from tests.fuzz.messages import broken, filled

NEVER = {grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL, grpc.StatusCode.DEADLINE_EXCEEDED}
SECONDS = 120


@pytest.fixture(scope="module")
def channel(target: Target) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(target.service.grpc) as made:
        yield made


def checked(target: Target, channel: grpc.Channel, rpc: Rpc, *requests: bytes) -> Answer:
    answer = call(
        channel,
        rpc,
        requests,
        timeout=SECONDS,
        metadata=tuple(target.headers.items()),
        most=50,
    )
    assert answer.code not in NEVER, f"{answer.code} {answer.details}: {requests!r}"[:2000]
    if answer.code is not grpc.StatusCode.OK:
        assert answer.details
        # Whoever is refused learns the request id and a reason.
        told = dict(answer.trailing).get("grpc-status-details-bin", b"")
        assert b"RequestInfo" in told, (answer.code, answer.details)
    for response in answer.responses:
        assert getattr(response, "reason", "") != "INTERNAL", response
    return answer


@pytest.mark.parametrize("name", RPCS)
def test_generated_messages(target: Target, channel: grpc.Channel, name: str) -> None:
    rpc = RPCS[name]

    @examples(15)
    @given(messages=st.lists(filled(rpc.request), min_size=1, max_size=3))
    def one(messages: list[Message]) -> None:
        count("gRPC generated messages", len(messages))
        sent = messages if rpc.takes_stream else messages[:1]
        checked(target, channel, rpc, *(message.SerializeToString() for message in sent))

    one()


@pytest.mark.parametrize("name", RPCS)
def test_broken_messages(target: Target, channel: grpc.Channel, name: str) -> None:
    rpc = RPCS[name]

    @examples(15)
    @given(bodies=st.lists(broken(rpc.request), min_size=1, max_size=3))
    def one(bodies: list[bytes]) -> None:
        count("gRPC broken messages", len(bodies))
        checked(target, channel, rpc, *(bodies if rpc.takes_stream else bodies[:1]))

    one()


HEADERS = st.lists(
    st.tuples(
        st.sampled_from(
            ["authorization", "resight-purpose", "traceparent", "tracestate", "x-bin", "x", "te"]
        ),
        st.sampled_from(["", "Bearer ", "Bearer rsk_0_0", "%", "%ff", "%zz", "a" * 6000, "é%20"])
        | st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60),
    ),
    max_size=8,
)


@examples(120)
@given(headers=HEADERS)
def test_generated_metadata(
    target: Target, channel: grpc.Channel, headers: list[tuple[str, str]]
) -> None:
    count("gRPC generated metadata")
    rpc = RPCS["GalleryService/GetGalleryStats"]
    sent = [
        (key, value.encode() if key.endswith("-bin") else value)
        for key, value in headers
        if value.isascii() and key != "te"
    ]
    answer = call(channel, rpc, [b""], timeout=SECONDS, metadata=tuple(sent))
    assert answer.code not in NEVER, (answer.code, answer.details, sent)
