"""Which RPC a request is about before any route has taken it."""

from __future__ import annotations

import re

from service.access.rights import ROUTES, mirrored


def test_a_request_mirrors_the_rpc_of_its_route_and_no_other_path_does() -> None:
    for route, method in ROUTES.items():
        verb, template = route.split(" ")
        path = re.sub(r"\{\w+\}", "x-1.y", template)
        assert mirrored(verb, path) == method
        assert mirrored(verb, f"{path}/") == mirrored(verb, f"/x{path}") == ""
        assert mirrored("TRACE", path) == ""
    assert mirrored("GET", "/v1/galleries/a/b/stats") == ""
