from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resight.errors import InvalidArgument
from resight.simulate.camera import cameras
from resight.simulate.schedule import TEST, TRAIN, schedule
from resight.simulate.settings import SimulationSettings


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"identities": 1}, "identities"),
        ({"identities": -3}, "identities"),
        ({"cameras": 1}, "cameras"),
        ({"cameras": 10_000}, "cameras"),
        ({"crops": 0}, "crops"),
        ({"crops": 399, "distractor_share": 0.0}, "crops"),
        ({"crops": 10**9}, "crops"),
        ({"seed": -1}, "seed"),
        ({"train_share": 0.0}, "train-share"),
        ({"train_share": 1.0}, "train-share"),
        ({"train_share": float("nan")}, "train-share"),
        ({"look_alikes": 0}, "look-alikes"),
        ({"camera_spread": -0.1}, "camera-spread"),
        ({"camera_spread": float("nan")}, "camera-spread"),
        ({"distractor_share": 0.9}, "distractor-share"),
    ],
)
def test_bad_values_name_their_option(options: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        SimulationSettings(**options)
    assert refused.value.field == field
    assert f"--{field}" in refused.value.message


@settings(max_examples=60, deadline=None)
@given(
    identities=st.integers(2, 40),
    count=st.integers(2, 12),
    spare=st.integers(0, 600),
    seed=st.integers(0, 2**32),
    share=st.floats(0.05, 0.95),
    distractors=st.floats(0.0, 0.5),
)
def test_any_accepted_settings_give_a_sound_plan(
    identities: int, count: int, spare: int, seed: int, share: float, distractors: float
) -> None:
    wanted = SimulationSettings(
        identities=identities,
        cameras=count,
        crops=9 * identities + spare,
        seed=seed,
        train_share=share,
        distractor_share=distractors,
    )
    plan = schedule(wanted, cameras(seed, count))
    assert len(plan) == wanted.crops
    assert len({(shot.split, shot.name) for shot in plan}) == wanted.crops
    assert sum(shot.identity == 0 for shot in plan) == wanted.distractors
    assert {shot.camera for shot in plan} <= set(range(1, count + 1))
    shown = {shot.identity for shot in plan if shot.identity}
    assert shown == set(range(1, identities + 1))
    assert all((shot.split == "train") == (shot.crowd == TRAIN) for shot in plan)
    for query in (shot for shot in plan if shot.split == "query"):
        assert query.crowd == TEST
        assert any(
            shot.split == "gallery"
            and shot.identity == query.identity
            and shot.camera != query.camera
            for shot in plan
        )
