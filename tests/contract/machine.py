"""Changes and searches of a GalleryIndex in any order; every answer must equal the brute force."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from uuid import UUID

import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from service.domain.crop import AttributeTerm
from service.domain.ports import CameraSpan, RowFilter
from service.domain.query import SearchMode
from service.gallery.index import SegmentedIndex
from service.gpu.index import GpuIndex
from service.milvus.index import MilvusIndex
from tests.contract.adapters import Adapter
from tests.service.gallery.brute_force import Row, as_rows, brute_force, unit

DIMENSION = 24
# The unit of the times here: 7 hours, so that days begin within and between rows.
TICK = 7 * 3_600_000_000
ZONES = ["", "gate", 'the "hall"', "nowhere"]
TRACKS = ["", "t1", "t\\2", "t3'] or (1 == 1", "t9"]
KEYS = ["bag", "coat", 'ha"t=']
COLOURS = ["red", "blue %", "{green}"]

TERMS = st.lists(
    st.builds(AttributeTerm, st.sampled_from(KEYS), st.lists(st.sampled_from(COLOURS), max_size=2)),
    max_size=2,
)
TIMES = st.integers(-5, 25).map(lambda number: number * TICK)
FILTERS = st.builds(
    RowFilter,
    include_cameras=st.none() | st.frozensets(st.integers(0, 6), max_size=4),
    exclude_cameras=st.frozensets(st.integers(0, 6), max_size=2),
    start=st.none() | TIMES,
    end=st.none() | TIMES,
    include_zones=st.none() | st.frozensets(st.sampled_from(ZONES), max_size=3),
    exclude_zones=st.frozensets(st.sampled_from(ZONES), max_size=1),
    include_tracks=st.none() | st.frozensets(st.sampled_from(TRACKS), max_size=3),
    exclude_tracks=st.frozensets(st.sampled_from(TRACKS), max_size=2),
    include_attributes=TERMS,
    exclude_attributes=TERMS,
    exclude_spans=st.lists(st.builds(CameraSpan, st.integers(0, 4), TIMES, TIMES), max_size=2),
)
# Conditions that leave something over are as likely as those that leave nothing.
FILTERS = FILTERS | st.builds(
    RowFilter, include_cameras=st.none() | st.frozensets(st.integers(0, 6)), start=TIMES
)


class IndexMachine(RuleBasedStateMachine):
    """Histories of one adapter."""

    def __init__(self, adapter: Adapter) -> None:
        super().__init__()
        self.adapter = adapter
        self.stack = ExitStack()

    @initialize(variant=st.integers(0, 47), seed=st.integers(0, 2**32 - 1))
    def begin(self, variant: int, seed: int) -> None:
        self.index = self.stack.enter_context(self.adapter.opened(DIMENSION, variant))
        self.caller = self.stack.enter_context(ThreadPoolExecutor(1))
        self.rng = np.random.default_rng(seed)
        self.rows: dict[UUID, Row] = {}
        self.clock = 0
        # Few distinct vectors, so that exact ties are common.
        self.pool = unit(self.rng.standard_normal((7, DIMENSION)))

    def teardown(self) -> None:
        self.stack.close()

    def new_row(self, ties: bool) -> Row:
        rng = self.rng
        vector = self.pool[rng.integers(7)] if ties else unit(rng.standard_normal(DIMENSION))
        # Mostly in order, so that stretches differ in time; often just on a border.
        tick = self.clock // 8 + int(rng.integers(4))
        return Row(
            crop_id=UUID(bytes=rng.bytes(16)),
            vector=vector,
            camera=int(rng.integers(5)),
            time=tick * TICK + int(rng.choice([0, 0, -1, 1, 1_234_567])),
            zone=ZONES[rng.integers(3)],
            track=TRACKS[rng.integers(4)],
            attributes={key: COLOURS[rng.integers(3)] for key in KEYS if rng.random() < 0.5},
        )

    @rule(count=st.integers(1, 40), ties=st.booleans())
    def add(self, count: int, ties: bool) -> None:
        added = [self.new_row(ties) for _ in range(count)]
        self.clock = (self.clock + count) % 160
        self.changed(
            lambda: self.index.add(as_rows(added)),
            {**self.rows, **{row.crop_id: row for row in added}},
        )

    @rule(share=st.floats(0, 1), strangers=st.integers(0, 6))
    def remove(self, share: float, strangers: int) -> None:
        chosen = [crop_id for crop_id in self.rows if self.rng.random() < share]
        unknown = [UUID(bytes=self.rng.bytes(16)) for _ in range(strangers)]
        # Half an id is not an id.
        unknown += [UUID(int=crop_id.int ^ 1 << 100) for crop_id in list(self.rows)[:strangers]]
        left = {crop_id: row for crop_id, row in self.rows.items() if crop_id not in set(chosen)}
        assert self.changed(lambda: self.index.remove(chosen + unknown), left) == len(chosen)
        assert self.index.remove(chosen) == 0

    @rule(share=st.floats(0, 1))
    def come_back(self, share: float) -> None:
        """An id may be used again, for another row."""
        chosen = [crop_id for crop_id in self.rows if self.rng.random() < share][:20]
        left = {crop_id: row for crop_id, row in self.rows.items() if crop_id not in set(chosen)}
        again = [replace(self.new_row(ties=True), crop_id=crop_id) for crop_id in chosen]
        self.changed(lambda: self.index.remove(chosen), left)
        if again:
            both = {**left, **{row.crop_id: row for row in again}}
            self.changed(lambda: self.index.add(as_rows(again)), both)

    @rule(time=TIMES, off=st.sampled_from([0, 1]))
    def drop_before(self, time: int, off: int) -> None:
        cut = time + off
        left = {crop_id: row for crop_id, row in self.rows.items() if row.time >= cut}
        gone = len(self.rows) - len(left)
        assert self.changed(lambda: self.index.drop_before(cut), left) == gone

    @precondition(lambda self: isinstance(getattr(self, "index", None), SegmentedIndex))
    @rule(most=st.none() | st.integers(0, 2))
    def compact(self, most: int | None) -> None:
        """Only the built-in index is told when to tidy up."""
        index = self.index
        assert isinstance(index, SegmentedIndex)
        self.changed(lambda: index.compact(most=most), self.rows)
        if most is None:
            assert index.compact() == 0

    @precondition(lambda self: isinstance(getattr(self, "index", None), GpuIndex))
    @rule()
    def settle(self) -> None:
        """Let the device catch up with the index."""
        assert isinstance(self.index, GpuIndex)
        self.index.settle()

    def changed(self, change: Callable[[], int | None], after: dict[UUID, Row]) -> int | None:
        """Make a change while another thread searches: it sees the state before or after."""
        query, before = self.pool[0], self.rows
        chosen = RowFilter(start=3 * TICK)
        racing = self.caller.submit(self.index.search, query, 5, chosen, None)
        outcome = change()
        hits = racing.result()
        answer = list(zip(hits.ids, hits.scores.tolist(), strict=True))
        expected = [
            (brute_force(list(rows.values()), query, 5, chosen, None)[0], len(rows))
            for rows in (before, after)
        ]
        assert (answer, hits.rows_total) in expected
        self.rows = after
        return outcome

    @rule(
        top_k=st.sampled_from([1, 2, 5, 50, 1000]),
        chosen=FILTERS,
        min_score=st.none() | st.floats(-1, 1),
        queries=st.sampled_from([1, 2, 9]),
        from_pool=st.booleans(),
        without=st.integers(0, 6),
    )
    def search(
        self,
        top_k: int,
        chosen: RowFilter,
        min_score: float | None,
        queries: int,
        from_pool: bool,
        without: int,
    ) -> None:
        vectors = unit(self.rng.standard_normal((queries, DIMENSION)))
        if from_pool:
            vectors[0] = self.pool[0]
        chosen = replace(chosen, exclude_ids=frozenset(sorted(self.rows)[:without]))
        if queries == 1:
            answers = [self.index.search(vectors[0], top_k, chosen, min_score)]
        else:
            answers = self.index.search_batch(vectors, top_k, chosen, min_score)
        assert len(answers) == queries
        for vector, hits in zip(vectors, answers, strict=True):
            expected, passing = brute_force(
                list(self.rows.values()), vector, top_k, chosen, min_score
            )
            assert list(zip(hits.ids, hits.scores.tolist(), strict=True)) == expected
            assert hits.scores.dtype == np.float32
            assert hits.mode in SearchMode
            assert hits.rows_scanned == passing
            assert hits.rows_total == len(self.rows)

    @rule(share=st.floats(0, 1), strangers=st.integers(0, 3))
    def vectors_of(self, share: float, strangers: int) -> None:
        asked = [crop_id for crop_id in self.rows if self.rng.random() < share]
        asked += [UUID(bytes=self.rng.bytes(16)) for _ in range(strangers)]
        asked = [asked[place] for place in self.rng.permutation(len(asked))]
        places, vectors = self.index.vectors_of(asked)
        known = [place for place, crop_id in enumerate(asked) if crop_id in self.rows]
        assert places.tolist() == known
        assert vectors.shape == (len(known), DIMENSION)
        for place, vector in zip(known, vectors, strict=True):
            np.testing.assert_array_equal(vector, self.rows[asked[place]].vector)

    @rule()
    def ids(self) -> None:
        """Those adapters that can list what they hold, for repairs, hold just that."""
        index = self.index
        if isinstance(index, SegmentedIndex):
            listed = index.snapshot.ids()
        elif isinstance(index, MilvusIndex):
            listed = index.ids()
        else:
            return
        held = [UUID(int=high << 64 | low) for high, low in listed.tolist()]
        assert sorted(held) == sorted(self.rows)

    @invariant()
    def counts(self) -> None:
        if hasattr(self, "index"):
            assert len(self.index) == len(self.rows)
