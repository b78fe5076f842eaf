"""Shares by camera against handing out one crop at a time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from adapt.nightly.quota import quota, shares


def one_by_one(available: dict[str, int], total: int) -> dict[str, int]:
    """The next crop goes to the camera with the fewest that has one left."""
    taken = dict.fromkeys(available, 0)
    for _ in range(total):
        open_cameras = [name for name in available if taken[name] < available[name]]
        if not open_cameras:
            break
        poorest = min(open_cameras, key=lambda name: (taken[name], name))
        taken[poorest] += 1
    return taken


cameras = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 30), max_size=8)


@given(cameras, st.integers(0, 300))
def test_shares_are_as_even_as_can_be(available: dict[str, int], total: int) -> None:
    found = shares(available, total)
    expected = one_by_one(available, total)
    assert sum(found.values()) == sum(expected.values()) == min(total, sum(available.values()))
    assert all(0 <= found[name] <= available[name] for name in available)
    assert sorted(found.values()) == sorted(expected.values())


@given(cameras, cameras, st.integers(0, 300), st.floats(0, 3))
def test_a_night_takes_older_crops_by_the_new_ones_it_takes(
    new: dict[str, int], older: dict[str, int], most: int, replay: float
) -> None:
    found = quota(new, older, most=most, replay=replay)
    taken = min(most, sum(new.values())) if most else sum(new.values())
    assert sum(found.new.values()) == taken
    assert sum(found.replay.values()) == min(round(replay * taken), sum(older.values()))
