"""Keys as somebody limited to a gallery sees, makes and revokes them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from resight.errors import InvalidArgument, NotFound, PermissionDenied, ResourceExhausted
from service import call
from service.application import api_keys
from service.call import Call
from service.domain.api_key import KeyRequest, new_key, principal_of, require_passing
from service.domain.page import decode_token, encode_token
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


def test_what_a_token_makes_passes(
    opened: Callable[..., Any], run: Callable[[Awaitable[Any]], Any]
) -> None:
    bearer = Principal("jwt:alice", "jwt", frozenset({"admin", "search"}))

    async def whole() -> None:
        async with opened(cameras=False) as application:
            keys = application.api_keys
            become(bearer)
            now = datetime.now(UTC)
            for expires in (None, now + timedelta(days=91), now + timedelta(days=9000)):
                with pytest.raises(PermissionDenied, match="token_key_days") as refused:
                    await keys.create(asked(expire_time=expires))
                assert refused.value.reason == "KEY_EXCEEDS_CREATOR"
                assert refused.value.field == "api_key.expire_time"
            soon = now + timedelta(days=89)
            made = (await keys.create(asked(expire_time=soon))).key
            assert made.creator == "jwt:alice"
            # Neither does a key of that key last longer.
            become(principal_of(made))
            for expires in (None, soon + timedelta(seconds=1)):
                with pytest.raises(PermissionDenied):
                    await keys.create(asked(expire_time=expires))
            grandchild = (await keys.create(asked(expire_time=soon))).key
            assert grandchild.creator == f"key:{made.key_id}"
            become(Principal("key:0", "key", bearer.scopes))
            assert (await keys.create(asked())).key.expire_time is None

    run(whole())


def test_tokens_may_be_let_make_none() -> None:
    bearer = Principal("jwt:alice", "jwt", frozenset({"admin", "search"}))
    now = datetime.now(UTC)
    key = new_key(
        asked(expire_time=now + timedelta(seconds=1)), key_id="0" * 16, creator="jwt", now=now
    )
    require_passing(bearer, key, days=1)
    with pytest.raises(PermissionDenied, match="ask somebody with a key"):
        require_passing(bearer, key, days=0)


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


def test_a_page_s_token_says_nothing_of_others_keys(
    opened: Callable[..., Any], run: Callable[[Awaitable[Any]], Any]
) -> None:
    async def whole() -> None:
        async with opened(cameras=False) as application:
            keys = application.api_keys
            become(LOCAL)
            shown = [(await keys.create(asked(galleries=["a"]))).key for _ in range(3)]
            hidden = (await keys.create(asked(galleries=["b"]))).key
            whoever = await keys.list(1)
            assert decode_token(whoever.next_page_token, listing="api-keys", shape=(str,)) == [
                hidden.key_id
            ]
            become(principal_of(shown[0]))
            first = await keys.list(1)
            assert [key.key_id for key in first.items] == [shown[2].key_id]
            second = await keys.list(1, first.next_page_token)
            assert [key.key_id for key in second.items] == [shown[1].key_id]
            # Whoever knows how tokens are made learns nothing with one of their own.
            told = set()
            made = [encode_token([each], listing="api-keys") for each in ("0" * 16, "\0", "é", "")]
            for token in (whoever.next_page_token, *made):
                with pytest.raises(InvalidArgument, match="page_token") as refused:
                    await keys.list(1, token)
                told.add(refused.value.message)
            assert len(told) == 1

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
