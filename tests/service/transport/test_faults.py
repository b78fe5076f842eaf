"""What of an error's field the audit is told: names of ours, and nothing that a caller wrote."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from resight.errors import InvalidArgument
from service import call
from service.call import Call
from service.domain.principal import LOCAL
from service.transport.faults import faulty, own_name

SERVICE = Path(__file__).parents[3] / "service"
# What answers calls; the other packages serve commands and starts.
ANSWERING = ("access", "application", "domain", "retrieval", "pipeline", "gallery", "transport")
# Of commands and listeners, and files in a bundle.
NOT_OF_CALLS = {"manifest.json"}


def arguments(name: str) -> Iterator[tuple[str, Path]]:
    """Every text that code which answers calls passes as this argument."""
    for package in ANSWERING:
        for path in (SERVICE / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.keyword) and node.arg == name:
                    value = node.value
                    if isinstance(value, ast.Constant) and isinstance(value.value, str):
                        yield value.value, path


def test_every_field_that_we_name_is_ours() -> None:
    found = dict(arguments("field"))
    assert len(found) > 50
    lost = {field: path for field, path in found.items() if own_name(field) != field}
    assert lost.keys() <= NOT_OF_CALLS, lost


@pytest.mark.parametrize(
    ("field", "told"),
    [
        ("filter.include_camera_ids", "filter.include_camera_ids"),
        ("negatives[3].crop_id", "negatives[3].crop_id"),
        ("filter.include_camera_ids.0", "filter.include_camera_ids.0"),
        ("limits.max_examples", "limits.max_examples"),
        ("resight-purpose", "resight-purpose"),
        # As far as it is ours.
        ("attributes.name of somebody", "attributes"),
        ("crop.attributes.colour", "crop.attributes"),
        ("filter.whatever.crop_id", "filter"),
        # Digits are what a caller wrote, but for one place in a list of ours.
        ("crop.attributes.123456.654321.42", "crop.attributes"),
        ("crop.attributes.queries.42", "crop.attributes"),
        ("crop_ids.42", "crop_ids.42"),
        ("crop_ids.42.43", "crop_ids.42"),
        ("queries.1.queries.2", "queries.1.queries"),
        ("negatives[1][2].crop_id", ""),
        ("negatives[1].queries[2]", "negatives[1]"),
        ("crop_id.7", "crop_id"),
        ("crop_id[7]", ""),
        ("limits.7", "limits"),
        ("rsk_0123456789abcdef_secret", ""),
        ("crop_id\n", ""),
        ("crop_id[999999999]", ""),
        ("0.crop_id", ""),
        ("", ""),
        (".".join(["filter"] * 100), ".".join(["filter"] * 8)),
    ],
)
def test_a_field_is_told_as_far_as_its_names_are_ours(field: str, told: str) -> None:
    assert own_name(field) == told


def test_the_call_is_told_of_its_error() -> None:
    now = Call("grpc", "SearchService/Search", principal=LOCAL)
    call.begin(now)
    try:
        faulty(InvalidArgument("wrong", field="attributes.mine", reason="TEXT_TOO_LONG"))
    finally:
        call.begin(call.OWN)
    assert (now.reason, now.named) == ("TEXT_TOO_LONG", "attributes")
    faulty(InvalidArgument("wrong", field="crop_id"))
    assert call.OWN.reason == ""
