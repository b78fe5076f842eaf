"""API keys: what one may do, checked; and that nobody hands on more than they have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from resight.errors import InvalidArgument, PermissionDenied
from service.domain import names
from service.domain.crop import TimeRange
from service.domain.instant import utc
from service.domain.principal import SCOPES, Principal, Scope

__all__ = [
    "ApiKey",
    "KeyRequest",
    "covers",
    "new_key",
    "principal_of",
    "require_covered",
    "require_passing",
]

MAX_NAME = 200
MAX_GALLERIES = 1000
MAX_CAMERAS = 1000
MAX_REQUESTS = 2_000_000_000


@dataclass(frozen=True, slots=True)
class KeyRequest:
    """The key that a caller wants, nothing checked yet; empty lists, 0 and None are no limit."""

    display_name: str = ""
    scopes: Sequence[str] = ()
    galleries: Sequence[str] = ()
    camera_ids: Sequence[str] = ()
    start_time: datetime | None = None
    end_time: datetime | None = None
    requests_per_minute: int = 0
    requests_per_day: int = 0
    expire_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key without its secret; ``revoke_time`` is None while it was not revoked."""

    key_id: str
    display_name: str
    scopes: tuple[Scope, ...]
    galleries: tuple[str, ...]
    camera_ids: tuple[str, ...]
    capture_range: TimeRange
    requests_per_minute: int
    requests_per_day: int
    create_time: datetime
    expire_time: datetime | None
    creator: str
    revoke_time: datetime | None = None


def new_key(asked: KeyRequest, *, key_id: str, creator: str, now: datetime) -> ApiKey:
    """A checked key, not yet stored.

    Raises:
        InvalidArgument: no scope or an unknown one, a bad name, a reversed time range, a negative
            bound, or it expires before it exists.
    """
    range_ = TimeRange(asked.start_time, asked.end_time).checked(field="api_key")
    expires = None
    if asked.expire_time is not None:
        expires = utc(asked.expire_time, field="api_key.expire_time")
        if expires <= now:
            raise InvalidArgument(
                f"api_key.expire_time {expires.isoformat()} has passed (the service's clock shows "
                f"{now.isoformat()}); send a later one, or none",
                field="api_key.expire_time",
            )
    return ApiKey(
        key_id=key_id,
        display_name=_name(asked.display_name),
        scopes=_scopes(asked.scopes),
        galleries=_galleries(asked.galleries),
        camera_ids=_cameras(asked.camera_ids),
        capture_range=range_,
        requests_per_minute=_bound(asked.requests_per_minute, "api_key.requests_per_minute"),
        requests_per_day=_bound(asked.requests_per_day, "api_key.requests_per_day"),
        create_time=now,
        expire_time=expires,
        creator=creator,
    )


def principal_of(key: ApiKey) -> Principal:
    """Whoever shows the key."""
    return Principal(
        name=f"key:{key.key_id}",
        kind="key",
        scopes=frozenset(key.scopes),
        galleries=frozenset(key.galleries) or None,
        cameras=frozenset(key.camera_ids) or None,
        capture_range=key.capture_range,
        requests_per_minute=key.requests_per_minute or None,
        requests_per_day=key.requests_per_day or None,
        expire_time=key.expire_time,
    )


def covers(principal: Principal, key: ApiKey) -> bool:
    """Whether the limits of a key lie within those of somebody, its scopes apart."""
    return _beyond(principal, principal_of(key)) is None


def require_covered(principal: Principal, key: ApiKey) -> None:
    """Refuse a key that may do more than whoever makes it.

    Raises:
        PermissionDenied: it would; names the field.
    """
    asked = principal_of(key)
    more = sorted(asked.scopes - principal.scopes)
    field = "api_key.scopes" if more else _beyond(principal, asked) or _sooner(principal, asked)
    if field is not None:
        what = f"scope {', '.join(more)}" if more else field.removeprefix("api_key.")
        raise PermissionDenied(
            f"{field}: {principal.name} may not hand on more than it has itself ({what})",
            field=field,
            reason="KEY_EXCEEDS_CREATOR",
        )


def require_passing(maker: Principal, key: ApiKey, *, days: float) -> None:
    """Refuse a lasting key to whoever shows a token: who they are is looked after elsewhere, where
    nobody knows of keys here, so that one would stay when they have left.

    Raises:
        PermissionDenied: it expires later than in so many days, or never; names the field.
    """
    latest = key.create_time + timedelta(days=days)
    if key.expire_time is None or key.expire_time > latest:
        fix = f"send one of {days:g} days at most" if days else "ask somebody with a key"
        raise PermissionDenied(
            f"api_key.expire_time: {maker.name} shows a token, and keys made so must expire soon "
            f"(access.token_key_days); {fix}",
            field="api_key.expire_time",
            reason="KEY_EXCEEDS_CREATOR",
        )


def _beyond(principal: Principal, asked: Principal) -> str | None:
    """The limit that is wider than the principal's own."""
    if not _within(asked.galleries, principal.galleries):
        return "api_key.galleries"
    if not _within(asked.cameras, principal.cameras):
        return "api_key.camera_ids"
    own, wanted = principal.capture_range, asked.capture_range
    if own.start_time is not None and (
        wanted.start_time is None or wanted.start_time < own.start_time
    ):
        return "api_key.start_time"
    if own.end_time is not None and (wanted.end_time is None or wanted.end_time > own.end_time):
        return "api_key.end_time"
    return None


def _sooner(principal: Principal, asked: Principal) -> str | None:
    """The bound in which the asked key outlives or outruns the principal."""
    for name in ("requests_per_minute", "requests_per_day", "expire_time"):
        own, wanted = getattr(principal, name), getattr(asked, name)
        if own is not None and (wanted is None or wanted > own):
            return f"api_key.{name}"
    return None


def _within(asked: frozenset[str] | None, own: frozenset[str] | None) -> bool:
    return own is None or (asked is not None and asked <= own)


def _name(value: str) -> str:
    checked = names.printable(value.strip(), field="api_key.display_name", limit=MAX_NAME)
    if not checked:
        raise InvalidArgument(
            "api_key.display_name is empty; say what the key is for", field="api_key.display_name"
        )
    return checked


def _scopes(values: Sequence[str]) -> tuple[Scope, ...]:
    _refuse_many(values, "api_key.scopes", len(SCOPES))
    for value in values:
        if value not in SCOPES:
            raise InvalidArgument(
                f"api_key.scopes: {value[:40]!r} is no scope; there are {', '.join(SCOPES)}",
                field="api_key.scopes",
            )
    if not values:
        raise InvalidArgument(
            f"api_key.scopes is empty; send at least one of {', '.join(SCOPES)}",
            field="api_key.scopes",
        )
    return tuple(scope for scope in SCOPES if scope in values)


def _galleries(values: Sequence[str]) -> tuple[str, ...]:
    _refuse_many(values, "api_key.galleries", MAX_GALLERIES)
    found = set()
    for value in values:
        try:
            found.add(names.gallery_name(value))
        except InvalidArgument as error:
            raise InvalidArgument(error.message, field="api_key.galleries") from error
    return tuple(sorted(found))


def _cameras(values: Sequence[str]) -> tuple[str, ...]:
    _refuse_many(values, "api_key.camera_ids", MAX_CAMERAS)
    return tuple(sorted({names.camera_id(value, field="api_key.camera_ids") for value in values}))


def _refuse_many(values: Sequence[str], field: str, limit: int) -> None:
    if len(values) > limit:
        raise InvalidArgument(f"{field} has {len(values)}; send at most {limit}", field=field)


def _bound(value: int, field: str) -> int:
    if not 0 <= value <= MAX_REQUESTS:
        raise InvalidArgument(
            f"{field} {value} is out of range; send 1 to {MAX_REQUESTS}, or 0 for the service's "
            "own",
            field=field,
        )
    return value
