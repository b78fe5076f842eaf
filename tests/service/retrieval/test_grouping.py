"""Groups, against all rows ranked and parted by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import replace
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resight.errors import InvalidArgument
from service.domain.crop import Crop
from service.domain.groups import GroupBy, Grouping, grouping
from service.domain.ports import RowFilter
from service.domain.query import Match
from service.retrieval.grouping import Found, grouped

CAMERAS = {"a": 1, "b": 2, "c": 3, "d": 4}

rows = st.lists(
    st.tuples(
        st.sampled_from(sorted(CAMERAS)),
        st.sampled_from(["", "t1", "t2", "t3"]),
        st.sampled_from([0.1, 0.2, 0.3, 0.4]),
    ),
    max_size=40,
)


def matches_of(made: list[tuple[str, str, float]]) -> list[Match]:
    found = [
        Match(Crop(UUID(int=n + 1), camera, n, b"", track), score)
        for n, (camera, track, score) in enumerate(made)
    ]
    return sorted(found, key=lambda match: (-match.score, match.crop.crop_id))


def expected(ranked: list[Match], by: GroupBy, count: int, size: int) -> list[list[Match]]:
    keys = [key_of(match, by) for match in ranked]
    order = list(dict.fromkeys(keys))[:count]
    return [[m for m, key in zip(ranked, keys, strict=True) if key == k][:size] for k in order]


def key_of(match: Match, by: GroupBy) -> object:
    crop = match.crop
    if by is GroupBy.CAMERA:
        return crop.camera_id
    return (crop.camera_id, crop.track_id) if crop.track_id else crop.crop_id


class Index:
    """Applies the parts of a filter that grouping uses; those that are ``gone`` are found, but have
    been deleted before anybody could read them.
    """

    def __init__(self, ranked: list[Match], gone: Collection[UUID] = ()) -> None:
        self.ranked = ranked
        self.gone = gone
        self.deepest = 0

    async def find(self, count: int, chosen: RowFilter) -> Found:
        self.deepest = max(self.deepest, count)
        passing = [match for match in self.ranked if self._passes(match, chosen)]
        there = [match for match in passing[:count] if match.crop.crop_id not in self.gone]
        return Found(there, len(passing) < count)

    def _passes(self, match: Match, chosen: RowFilter) -> bool:
        camera = CAMERAS[match.crop.camera_id]
        if chosen.include_cameras is not None and camera not in chosen.include_cameras:
            return False
        if chosen.include_tracks is not None and match.crop.track_id not in chosen.include_tracks:
            return False
        return camera not in chosen.exclude_cameras


@settings(max_examples=200)
@given(rows, st.sampled_from([GroupBy.CAMERA, GroupBy.TRACK]), st.integers(1, 6),
       st.integers(1, 5), st.sets(st.sampled_from(sorted(CAMERAS)), max_size=2))  # fmt: skip
def test_groups_are_those_of_the_whole_ranking(
    made: list[tuple[str, str, float]], by: GroupBy, count: int, size: int, excluded: set[str]
) -> None:
    ranked = matches_of(made)
    chosen = replace(RowFilter(), exclude_cameras=frozenset(CAMERAS[name] for name in excluded))
    found = asyncio.run(
        grouped(
            Index(ranked).find,
            Grouping(by, size),
            count=count,
            chosen=chosen,
            camera_row=CAMERAS.__getitem__,
            deepest=1000,
        )
    )
    left = [match for match in ranked if match.crop.camera_id not in excluded]
    assert found == expected(left, by, count, size)


def test_a_crowded_camera_is_not_read_through() -> None:
    made = [("a", "t1", 0.9)] * 500 + [("b", "", 0.1), ("c", "", 0.05)]
    index = Index(matches_of(made))
    found = asyncio.run(
        grouped(
            index.find,
            Grouping(GroupBy.CAMERA, 2),
            count=3,
            chosen=RowFilter(),
            camera_row=CAMERAS.__getitem__,
            deepest=1000,
        )
    )
    assert [group[0].crop.camera_id for group in found] == ["a", "b", "c"]
    assert index.deepest == 6


@given(rows, st.sampled_from([GroupBy.CAMERA, GroupBy.TRACK]), st.integers(1, 6),
       st.integers(1, 5), st.sets(st.integers(1, 40)))  # fmt: skip
def test_crops_that_are_deleted_meanwhile_hide_no_group(
    made: list[tuple[str, str, float]], by: GroupBy, count: int, size: int, gone: set[int]
) -> None:
    index = Index(matches_of(made), {UUID(int=number) for number in gone})
    found = asyncio.run(
        grouped(
            index.find,
            Grouping(by, size),
            count=count,
            chosen=RowFilter(),
            camera_row=CAMERAS.__getitem__,
            deepest=1000,
        )
    )
    left = [match for match in index.ranked if match.crop.crop_id not in index.gone]
    keys = [key_of(group[0], by) for group in found]
    assert len(set(keys)) == len(keys)
    assert len(found) == len(expected(left, by, count, size))
    assert all(match in left for group in found for match in group)


def test_a_track_too_long_to_see_past_is_refused() -> None:
    index = Index(matches_of([("a", "t1", 0.9)] * 500 + [("b", "t2", 0.1)]))
    with pytest.raises(InvalidArgument, match=r"limits\.max_ranked") as caught:
        asyncio.run(
            grouped(
                index.find,
                Grouping(GroupBy.TRACK, 2),
                count=2,
                chosen=RowFilter(),
                camera_row=CAMERAS.__getitem__,
                deepest=100,
            )
        )
    assert caught.value.field == "group_by"


@pytest.mark.parametrize(
    ("by", "size", "token", "field"),
    [
        (GroupBy.NOTHING, 2, "", "group_size"),
        (GroupBy.CAMERA, 0, "", "group_size"),
        (GroupBy.CAMERA, 11, "", "group_size"),
        (GroupBy.TRACK, 2, "x", "page_token"),
    ],
)
def test_bad_groupings_are_named(by: GroupBy, size: int, token: str, field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        grouping(by, size, groups=10, page_token=token, limit=100)
    assert caught.value.field == field


def test_the_usual_group_has_three_where_they_fit() -> None:
    assert grouping(GroupBy.NOTHING, None, groups=10, page_token="", limit=100) is None
    for groups, size in ((10, 3), (50, 2), (100, 1)):
        made = grouping(GroupBy.CAMERA, None, groups=groups, page_token="", limit=100)
        assert made == Grouping(GroupBy.CAMERA, size)
