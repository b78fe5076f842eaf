"""That nobody hands on more than they have: against what each could do, thing by thing."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from resight.errors import InvalidArgument, PermissionDenied
from service.domain.api_key import KeyRequest, covers, new_key, principal_of, require_covered
from service.domain.principal import SCOPES, Principal

NOW = datetime(2026, 6, 1, tzinfo=UTC)
DAYS = [None, *(NOW - timedelta(days=day) for day in (30, 20, 10))]


def made(**asked: Any) -> Any:
    return new_key(KeyRequest(**{"display_name": "k", "scopes": ["search"], **asked}), key_id="k",
                   creator="test", now=NOW)  # fmt: skip


def random_key(rng: np.random.Generator) -> Any:
    def some(values: list[Any]) -> list[Any]:
        return [value for value in values if rng.random() < 0.4]

    start, end = (DAYS[int(rng.integers(4))] for _ in range(2))
    if start is not None and end is not None and start >= end:
        end = None
    return made(
        scopes=some(list(SCOPES)) or ["audit"],
        galleries=some(["a", "b", "c"]),
        camera_ids=some(["c1", "c2"]),
        start_time=start,
        end_time=end,
        requests_per_minute=int(rng.integers(3)),
        requests_per_day=int(rng.integers(3)),
        expire_time=[None, NOW + timedelta(days=1), NOW + timedelta(days=2)][rng.integers(3)],
    )


def deeds(principal: Principal) -> set[tuple[Any, ...]]:
    """All that it could do in a small world: which gallery's, camera's and day's crops it sees, by
    scope apart; how often; until when. Things beyond every name stand for all others.
    """
    galleries = [g for g in "abcd" if principal.galleries is None or g in principal.galleries]
    cameras = [c for c in ("c1", "c2", "c3") if principal.cameras is None or c in principal.cameras]
    start, end = principal.capture_range.start_time, principal.capture_range.end_time
    times = [
        day
        for day in (NOW - timedelta(days=days) for days in (35, 30, 25, 20, 15, 10, 5))
        if (start is None or day >= start) and (end is None or day < end)
    ]
    found: set[tuple[Any, ...]] = set(itertools.product(galleries, cameras, times))
    return found


def frequent(principal: Principal) -> set[tuple[Any, ...]]:
    bounds = (principal.requests_per_minute, principal.requests_per_day)
    found = {
        (place, count)
        for place, bound in enumerate(bounds)
        for count in range(1, 5)
        if bound is None or count <= bound
    }
    moments = [NOW + timedelta(hours=hours) for hours in (1, 30, 60)]
    expires = principal.expire_time
    return found | {("at", moment) for moment in moments if expires is None or moment < expires}


def test_a_key_is_refused_exactly_when_it_could_do_more() -> None:
    rng, refused, taken = np.random.default_rng(5), 0, 0
    for _ in range(20_000):
        maker, key = principal_of(random_key(rng)), random_key(rng)
        asked = principal_of(key)
        beyond = not deeds(asked) <= deeds(maker)
        assert covers(maker, key) == (not beyond)
        more = beyond or not asked.scopes <= maker.scopes or not frequent(asked) <= frequent(maker)
        if not more:
            taken += 1
            require_covered(maker, key)
            continue
        refused += 1
        with pytest.raises(PermissionDenied) as error:
            require_covered(maker, key)
        assert error.value.reason == "KEY_EXCEEDS_CREATOR"
        assert error.value.field.startswith("api_key.")
    assert refused > 1000
    assert taken > 50


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"scopes": []}, "api_key.scopes"),
        ({"scopes": ["search", "root"]}, "api_key.scopes"),
        ({"display_name": "  "}, "api_key.display_name"),
        ({"display_name": "x" * 201}, "api_key.display_name"),
        ({"display_name": "a\nb"}, "api_key.display_name"),
        ({"galleries": ["Not A Gallery"]}, "api_key.galleries"),
        ({"galleries": [f"g{number}" for number in range(1001)]}, "api_key.galleries"),
        ({"camera_ids": [""]}, "api_key.camera_ids"),
        ({"camera_ids": ["x" * 65]}, "api_key.camera_ids"),
        ({"camera_ids": [f"c{number}" for number in range(1001)]}, "api_key.camera_ids"),
        ({"start_time": NOW, "end_time": NOW}, "api_key"),
        ({"start_time": NOW.replace(tzinfo=None)}, "api_key.start_time"),
        ({"requests_per_minute": -1}, "api_key.requests_per_minute"),
        ({"requests_per_day": 2**31}, "api_key.requests_per_day"),
        ({"expire_time": NOW}, "api_key.expire_time"),
        ({"expire_time": NOW - timedelta(days=1)}, "api_key.expire_time"),
    ],
)
def test_bad_input_names_the_field(wrong: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        made(**wrong)
    assert refused.value.field == field
