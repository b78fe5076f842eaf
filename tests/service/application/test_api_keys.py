"""Keys as somebody limited to a gallery sees, makes and revokes them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from resight.errors import InvalidArgument, NotFound, PermissionDenied, ResourceExhausted
from service import call
from service.application import api_keys
from service.call import Call
from service.domain.api_key import KeyRequest, principal_of
from service.domain.principal import LOCAL, Principal


def become(principal: Principal) -> Call:
    now = Call("grpc", "Test/Test", principal=principal)
    call.begin(now)
    return now


def asked(name: str = "k", **more: Any) -> KeyRequest:
    return KeyRequest(name, **{"scopes": ["admin", "search"], **more})


async def listed(keys: Any, size: int = 2) -> list[str]:
    found, token = [], ""
    while True:
        page = await keys.list(size, token)
        found += [key.display_name for key in page.items]
        token = page.next_page_token
        if not token:
            return found


def test_an_admin_of_a_gallery_stays_in_it(
    opened: Callable[..., Any], run: Callable[[Awaitable[Any]], Any]
) -> None:
    async def whole() -> None:
        async with opened(cameras=False) as application:
            keys = application.api_keys
            become(LOCAL)
            made = {
                name: (await keys.create(asked(name, galleries=galleries))).key
                for name, galleries in (
                    ("a", ["a"]), ("b", ["b"]), ("all", []), ("both", ["a", "b"]), ("a2", ["a"]),
                )
            }  # fmt: skip
            assert await listed(keys) == ["a2", "both", "all", "b", "a"]
            now = become(principal_of(made["a"]))
            assert await listed(keys) == ["a2", "a"]
            assert await listed(keys, 1) == ["a2", "a"]
            for galleries in (["b"], ["a", "b"], []):
                with pytest.raises(PermissionDenied) as refused:
                    await keys.create(asked(galleries=galleries))
                assert refused.value.field == "api_key.galleries"
            with pytest.raises(PermissionDenied, match="audit"):
                await keys.create(asked(galleries=["a"], scopes=["audit"]))
            for name in ("b", "all", "both"):
                with pytest.raises(NotFound) as hidden:
                    await keys.revoke(made[name].key_id)
                with pytest.raises(NotFound) as absent:
                    await keys.revoke("0" * 16)
                assert hidden.value.reason == absent.value.reason
            revoked = await keys.revoke(made["a2"].key_id)
            assert revoked.revoke_time is not None
            assert await keys.revoke(made["a2"].key_id) == revoked
            child = await keys.create(asked("child", galleries=["a"]))
            assert child.key.creator == f"key:{made['a'].key_id}"
            assert child.text not in repr(now.notes)
            assert now.notes["key_id"] == child.key.key_id
            become(LOCAL)
            for wrong in ({"page_size": -1}, {"page_token": "x"}):
                with pytest.raises(InvalidArgument):
                    await keys.list(**wrong)

    run(whole())


def test_there_are_only_so_many_keys(
    opened: Callable[..., Any],
    run: Callable[[Awaitable[Any]], Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(api_keys, "MAX_KEYS", 2)

    async def whole() -> None:
        async with opened(cameras=False) as application:
            become(LOCAL)
            first = await application.api_keys.create(asked())
            await application.api_keys.create(asked())
            with pytest.raises(ResourceExhausted):
                await application.api_keys.create(asked())
            await application.api_keys.revoke(first.key.key_id)
            await application.api_keys.create(asked())

    run(whole())
