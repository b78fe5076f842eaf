"""Every RPC and every route with no key, a wrong one, each scope, an expired and a revoked key, one
of another gallery and one limited to a camera. An RPC or route that the table lacks fails.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc
import httpx
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from resight.errors import InvalidArgument
from service.access import direct
from service.application.api_keys import MadeKey
from service.domain.api_key import KeyRequest
from service.settings import load_settings
from tests.e2e.access_table import ALL, LIMITED, ROUTES, SCOPES, body_of, gallery_free
from tests.e2e.rpcs import RPCS, Rpc, call

DOCUMENTED = Path(__file__).parents[2] / "docs" / "security.md"
ON = {
    "RESIGHT_ACCESS__AUTHENTICATION": "on",
    "RESIGHT_ACCESS__REFUSED_ATTEMPTS_PER_MINUTE": "0",
}
_CODES = {401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 500: "INTERNAL", 405: "UNIMPLEMENTED"}


@dataclass(frozen=True)
class Guarded:
    """A service that asks for credentials, and some."""

    grpc: str
    rest: str
    channel: Any
    client: httpx.Client
    keys: dict[str, str]


def made(data: Path, **asked: Any) -> MadeKey:
    return direct.create(load_settings({"data_dir": data}), KeyRequest("matrix", **asked))


def soon_expired(data: Path) -> tuple[str, datetime]:
    """A key and when it expires: in a moment, if a busy machine has made it by then."""
    for seconds in (5, 20, 80):
        soon = datetime.now(UTC) + timedelta(seconds=seconds)
        with suppress(InvalidArgument):
            return made(data, scopes=ALL, expire_time=soon).text, soon
    raise AssertionError("no key is made within a minute")


@pytest.fixture(scope="module")
def guarded(
    tmp_path_factory: pytest.TempPathFactory, start_service: Callable[..., Any]
) -> Iterator[Guarded]:
    data = tmp_path_factory.mktemp("guarded") / "data"
    keys = {scope: made(data, scopes=[scope]).text for scope in ALL}
    keys["expired"], soon = soon_expired(data)
    revoked = made(data, scopes=ALL)
    direct.revoke(load_settings({"data_dir": data}), revoked.key.key_id)
    keys["revoked"] = revoked.text
    keys["other gallery"] = made(data, scopes=ALL, galleries=["other"]).text
    keys["limited"] = made(data, scopes=ALL, camera_ids=["cam"]).text
    good = keys["search"]
    keys["none"] = ""
    keys["malformed"] = "rsk_nothing"
    keys["no key at all"] = "Zm9v.YmFy.YmF6"
    keys["wrong secret"] = good[:-1] + ("A" if good[-1] != "A" else "B")
    keys["unknown id"] = "rsk_" + "0" * 16 + good[20:]
    with (
        start_service(data, **ON) as service,
        grpc.insecure_channel(service.grpc) as channel,
        httpx.Client(base_url=f"http://{service.rest}", timeout=120) as client,
    ):
        time.sleep(max(0.0, (soon - datetime.now(UTC)).total_seconds()))
        yield Guarded(service.grpc, service.rest, channel, client, keys)


def shown(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"} if key else {}


def outcome(code: str, reason: str) -> str:
    """What an answer says about access; `in` when it was let in, whatever came of it then."""
    if code == "UNAUTHENTICATED":
        return "unauthenticated"
    if code in ("INTERNAL", "UNKNOWN", "UNIMPLEMENTED"):
        return f"broken: {code}"
    denied = {
        "SCOPE_MISSING": "scope",
        "GALLERY_NOT_ALLOWED": "gallery",
        "LIMITED_CALLER": "limited",
    }
    return denied.get(reason, "in")


def least(rpc: Rpc) -> Message:
    """A message about the gallery `default` and little else."""
    request: Any = rpc.request()
    about = request
    if rpc.name == "ModelService/RegisterModel":
        about = request.upload
    elif rpc.name == "SearchService/SearchBatch":
        about = request.queries.add()
    elif rpc.name == "SearchService/TrackPerson":
        about = request.query
        about.min_score = 0.5
    elif rpc.name == "GalleryService/CreateCamera":
        request.camera.camera_id = "cam"
    if "gallery" in about.DESCRIPTOR.fields_by_name and not gallery_free(rpc.name):
        about.gallery = "default"
    made: Message = request
    return made


def by_grpc(guarded: Guarded, key: str, rpc: Rpc) -> str:
    metadata = tuple(shown(key).items())
    answer = call(guarded.channel, rpc, [least(rpc).SerializeToString()], metadata=metadata)
    if rpc.name == "GalleryService/IngestCrops" and answer.responses:
        # A stream answers each item, so that one refused does not end the others.
        return outcome("OK", answer.responses[0].reason)
    if rpc.name == "SearchService/SearchBatch" and answer.responses:
        (result,) = answer.responses[0].results
        return outcome("OK", result.error.reason)
    return outcome(answer.code.name, reason_of(answer.trailing))


def reason_of(trailing: Any) -> str:
    for name, value in trailing:
        if name == "grpc-status-details-bin":
            for detail in status_pb2.Status.FromString(value).details:
                info = error_details_pb2.ErrorInfo()
                if detail.Unpack(info):
                    return str(info.reason)
    return ""


def by_rest(guarded: Guarded, key: str, route: str, schema: Any) -> str:
    verb, _, template = route.partition(" ")
    operation = schema["paths"][template][verb.lower()]
    path = template.replace("{gallery}", "default")
    path = re.sub(r"\{(camera_id|key_id|model_version)\}", "x", path)
    path = re.sub(r"\{\w+\}", str(uuid4()), path)
    options: dict[str, Any] = {"headers": shown(key)}
    query = [each for each in operation.get("parameters", []) if each["in"] == "query"]
    options["params"] = {each["name"]: "x" for each in query if each.get("required")}
    content = operation.get("requestBody", {}).get("content", {})
    components = schema["components"]["schemas"]
    if "application/json" in content:
        options["json"] = body_of(content["application/json"]["schema"], components)
    elif content:
        form = components[content["multipart/form-data"]["schema"]["$ref"].rpartition("/")[2]]
        files, fields = {}, {}
        for name in form.get("required", []):
            if form["properties"][name].get("type") == "string" and (
                "contentMediaType" in form["properties"][name]
                or form["properties"][name].get("format") == "binary"
            ):
                files[name] = ("x", b"x")
            else:
                fields[name] = body_of(form["properties"][name], components)
        options |= {"files": files or {"nothing": ("", b"")}, "data": fields}
    with guarded.client.stream(verb, path, **options) as answer:
        body = answer.read() if answer.status_code >= 400 else b"{}"
    problem = httpx.Response(answer.status_code, content=body).json()
    return outcome(_CODES.get(answer.status_code, "OK"), problem.get("reason", ""))


@pytest.fixture(scope="module")
def schema(guarded: Guarded) -> Any:
    return guarded.client.get("/v1/openapi.json", headers=shown(guarded.keys["audit"])).json()


def expected(who: str, rpc: str) -> str:
    if who in ALL:
        return "in" if who in SCOPES[rpc] else "scope"
    if who == "other gallery":
        return "in" if gallery_free(rpc) else "gallery"
    if who == "limited":
        return "limited" if rpc in LIMITED else "in"
    return "unauthenticated"


WHO = [
    "none", "malformed", "no key at all", "wrong secret", "unknown id", "expired", "revoked", *ALL,
    "other gallery", "limited",
]  # fmt: skip


def test_the_table_has_every_rpc_and_every_route(schema: Any) -> None:
    assert SCOPES.keys() == RPCS.keys()
    served = {f"{verb.upper()} {path}" for path, verbs in schema["paths"].items() for verb in verbs}
    assert ROUTES.keys() == served
    assert SCOPES.keys() >= LIMITED


@pytest.mark.parametrize("who", WHO)
def test_every_rpc(guarded: Guarded, who: str) -> None:
    found = {name: by_grpc(guarded, guarded.keys[who], rpc) for name, rpc in RPCS.items()}
    assert found == {name: expected(who, name) for name in RPCS}


@pytest.mark.parametrize("who", WHO)
def test_every_route(guarded: Guarded, schema: Any, who: str) -> None:
    found = {route: by_rest(guarded, guarded.keys[who], route, schema) for route in ROUTES}
    assert found == {route: expected(who, rpc) for route, rpc in ROUTES.items()}


@pytest.mark.parametrize("path", ["/v1/openapi.json", "/v1/nothing", "/metrics"])
def test_what_is_no_route_of_ours_needs_a_key_too(guarded: Guarded, path: str) -> None:
    for who in ("none", "malformed", "wrong secret", "expired", "revoked"):
        assert guarded.client.get(path, headers=shown(guarded.keys[who])).status_code == 401
    answer = guarded.client.get(path, headers=shown(guarded.keys["audit"]))
    assert answer.status_code == (404 if path == "/v1/nothing" else 200)


@pytest.mark.parametrize("who", ["other gallery", "limited"])
def test_metrics_name_every_gallery_to_the_unlimited_alone(guarded: Guarded, who: str) -> None:
    answer = guarded.client.get("/metrics", headers=shown(guarded.keys[who]))
    assert answer.status_code == 403
    assert answer.json()["reason"] == "LIMITED_CALLER"
    assert "resight_" not in answer.text


def test_probes_and_health_need_none_and_reflection_does(guarded: Guarded) -> None:
    assert guarded.client.get("/healthz").status_code == 200
    assert guarded.client.get("/readyz").status_code == 200
    health = guarded.channel.unary_unary("/grpc.health.v1.Health/Check")
    assert health(b"", timeout=60) == b"\x08\x01"
    stub = reflection_pb2_grpc.ServerReflectionStub(guarded.channel)
    request = reflection_pb2.ServerReflectionRequest(list_services="")

    def listed(who: str) -> list[str]:
        metadata = tuple(shown(guarded.keys[who]).items())
        (answer,) = stub.ServerReflectionInfo(iter([request]), timeout=60, metadata=metadata)
        return [service.name for service in answer.list_services_response.service]

    assert "resight.v1.SearchService" in listed("ingest")
    for who in ("none", "wrong secret", "expired", "revoked"):
        with pytest.raises(grpc.RpcError) as refused:
            listed(who)
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize(
    "header",
    [
        "Basic {key}",
        "{key}",
        "Bearer",
        "Bearer {key} {key}",
        "Bearer {key}x",
        "Bearer " + "x" * 17_000,
        "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJtZSJ9.",
    ],
)
def test_a_key_said_otherwise_is_none(guarded: Guarded, header: str) -> None:
    said = header.format(key=guarded.keys["search"])
    answer = guarded.client.get("/v1/galleries/default/crops", headers={"authorization": said})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == 'Bearer realm="resight"'
    assert guarded.keys["search"] not in answer.text


def test_the_documentation_has_the_same_table() -> None:
    rows = re.findall(r"^\| `(\w+/\w+)` \| ([^|]+) \| ([^|]+) \|", DOCUMENTED.read_text(), re.M)
    documented = {name: set(scopes.replace("`", "").split(", ")) for name, scopes, _ in rows}
    assert {
        name: {each.strip() for each in scopes} for name, scopes in documented.items()
    } == SCOPES
    refused = {name for name, _, limited in rows if limited.strip().startswith("refused")}
    assert refused == LIMITED
