"""The gate's decision, on a made-up site whose people only the test knows."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from adapt.gate.comparison import Findings, compare, weigh
from adapt.gate.observation import Observation
from adapt.gate.score import BOUND, WATCHED, WEIGHED, contributions, score
from adapt.gate.settings import GateSettings
from adapt.gate.signals import measure
from tests.adapt.gate.conftest import Site, unit

SETTINGS = GateSettings()
NIGHTS = 30


def _compare(
    site: Site,
    candidate: Observation,
    live: Observation,
    baseline: Observation | None = None,
    settings: GateSettings = SETTINGS,
) -> Findings:
    return compare(candidate, live, baseline, site.sample, settings, threads=1)


def test_an_encoder_equals_itself(site: Site) -> None:
    found = _compare(site, site.encoder(), site.encoder(), site.encoder())
    assert found.refusals == ()
    assert found.score == found.baseline_score == 0.0


@pytest.mark.parametrize("cameras", [True, False])
def test_better_passes_and_worse_is_refused_by_name(
    site: Site, blind_site: Site, *, cameras: bool
) -> None:
    where = site if cameras else blind_site
    good, worse = where.encoder(), where.encoder(spoilt=1.0)
    assert where.precision(good) > where.precision(worse) + 0.1
    up, down = _compare(where, good, worse), _compare(where, worse, good)
    assert up.refusals == ()
    assert up.score > 0.3
    assert down.score == pytest.approx(-up.score)
    assert any(reason.startswith("live: score -") for reason in down.refusals)
    assert any("silhouette" in reason for reason in down.refusals)


def test_thirty_nights_a_little_worse_each_are_stopped_by_the_baseline(site: Site) -> None:
    """Each night passes against the last; only the baseline sees where they lead."""
    nights = [site.encoder(spoilt=0.6 * night / NIGHTS) for night in range(NIGHTS + 1)]
    alone = [_compare(site, after, before) for before, after in list(pairwise(nights))[::3]]
    # One draw of the spoiling noise is no straight line; most steps pass unseen.
    assert sum(not found.refusals for found in alone) >= len(alone) - 1
    assert site.precision(nights[0]) - site.precision(nights[-1]) > 0.1

    live, refused = nights[0], 0
    for candidate in nights[1:]:
        found = _compare(site, candidate, live, nights[0])
        if found.refusals:
            refused += 1
            assert found.baseline_score is not None
        else:
            live = candidate
    assert refused >= NIGHTS // 3
    last = _compare(site, live, nights[0])
    assert last.score >= -SETTINGS.baseline_margin
    assert site.precision(nights[0]) - site.precision(live) < 0.5 * (
        site.precision(nights[0]) - site.precision(nights[-1])
    )
    final = _compare(site, nights[-1], nights[-2], nights[0])
    assert any(reason.startswith("baseline: score -") for reason in final.refusals)


def _constant(site: Site) -> Observation:
    good = site.encoder()
    one = np.ones(good.features.shape[1]) * 20
    return Observation(unit(good.features + one), unit(good.copies + one))


def _flat(site: Site) -> Observation:
    good = site.encoder()
    plane = np.linalg.qr(np.random.default_rng(0).standard_normal((good.features.shape[1], 2)))[0]
    return Observation(unit(good.features @ plane @ plane.T), unit(good.copies @ plane @ plane.T))


def _one_point(site: Site) -> Observation:
    good = site.encoder()
    return Observation(
        np.repeat(good.features[:1], len(good.features), axis=0),
        np.repeat(good.features[:1], len(good.copies), axis=0),
    )


def _random(site: Site) -> Observation:
    shape = site.encoder().features.shape
    random = np.random.default_rng(1)
    rows = unit(random.standard_normal(shape))
    return Observation(rows, unit(random.standard_normal(shape)))


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (_constant, "nearly one vector for all"),
        (_flat, "effective rank"),
        (_one_point, "effective rank"),
        (_random, "live: score -"),
    ],
)
def test_collapse_is_refused_whatever_the_score(site: Site, spoil, reason: str) -> None:  # type: ignore[no-untyped-def]
    found = _compare(site, spoil(site), site.encoder())
    assert any(reason in refusal for refusal in found.refusals), found.refusals


def test_an_encoder_that_fails_is_refused_with_its_fault(site: Site) -> None:
    failed = replace(site.encoder(), fault="encoder: unit vectors are needed")
    found = _compare(site, failed, site.encoder(), site.encoder())
    assert found.refusals == ("collapse: encoder: unit vectors are needed",)
    assert found.score == found.baseline_score == -4.0


def test_another_dimension_is_refused_unless_allowed(site: Site) -> None:
    good = site.encoder()
    wide = Observation(
        np.pad(good.features, ((0, 0), (0, 5))), np.pad(good.copies, ((0, 0), (0, 5)))
    )
    refused = _compare(site, wide, good)
    assert refused.refusals == ("dimension: the candidate gives 53 values, the live encoder 48",)
    allowed = GateSettings(same_dimension=False)
    assert _compare(site, wide, good, settings=allowed).refusals == ()


def test_tracks_that_fall_apart_are_refused(site: Site) -> None:
    """Only crops of one track lose each other: a margin no score would let pass hides nothing."""
    loose = GateSettings(margin=4, max_drop=4, max_track_drop=0.02)
    good, worse = site.encoder(), site.encoder(spoilt=1.0)
    found = _compare(site, worse, good, settings=loose)
    assert [reason.split(":")[0] for reason in found.refusals] == ["track_agreement"]
    signal = {s.name: s for s in found.signals}["track_agreement"]
    assert signal.live is not None
    assert signal.candidate is not None
    assert signal.live - signal.candidate > 0.02


def test_a_single_signal_may_not_fall_far(site: Site) -> None:
    strict = GateSettings(margin=4, max_track_drop=1, max_drop=0.5)
    found = _compare(site, site.encoder(spoilt=1.0), site.encoder(), settings=strict)
    assert found.refusals
    assert all("fall of" in reason for reason in found.refusals)


def test_the_score_is_monotone_bounded_and_counts_what_is_missing() -> None:
    live: dict[str, float | None] = {
        "silhouette": 0.2, "stability": 0.4, "reciprocity": 0.5, "steadiness": 0.2,
    }  # fmt: skip
    assert live.keys() == WEIGHED.keys()
    for name, value in live.items():
        assert value is not None
        higher = score(live | {name: value + 0.01}, live)
        assert higher == pytest.approx(0.01 / WEIGHED[name].scale / len(live))
        assert score(live | {name: value + 100}, live) == pytest.approx(4 / len(live))
        assert score(live | {name: None}, live) == pytest.approx(-4 / len(live))
        # What the reference lacks cannot be compared: the rest decide.
        assert score(live, live | {name: None}) == 0.0


def test_what_is_no_number_is_no_merit() -> None:
    nothing = float("nan")
    assert contributions({"silhouette": nothing}, {"silhouette": 0.3}) == {"silhouette": -BOUND}
    assert contributions({"silhouette": 0.3}, {"silhouette": nothing}) == {}


def test_cameras_kept_apart_are_refused_and_not_weighed(site: Site) -> None:
    """A fall of mixing alone refuses; neither a fall nor a rise moves the score."""
    figures = measure(site.view(site.encoder()))
    mixing = figures["mixing"]
    assert mixing is not None
    edge = SETTINGS.max_drop * WATCHED["mixing"]
    for change in (-edge - 0.01, -edge + 0.01, edge + 0.01):
        found, reasons = weigh(figures | {"mixing": mixing + change}, figures, SETTINGS)
        assert found == 0.0
        assert [reason.split(":")[0] for reason in reasons] == ["mixing"] * (change < -edge)
    assert weigh(figures | {"mixing": None}, figures, SETTINGS)[1]
    # Through the whole comparison, by an encoder that writes the camera into its vectors.
    loose = GateSettings(margin=4, max_track_drop=1)
    biased = _compare(site, site.encoder(cast=1.5), site.encoder(cast=0.0), settings=loose)
    assert any(reason.startswith("mixing: ") for reason in biased.refusals)
    assert {s.name: s.weight for s in biased.signals}["mixing"] == 0.0
