"""The budget on a clock moved by hand."""

from __future__ import annotations

import pytest

from adapt.nightly.budget import TimeBudget, duration
from resight.errors import InvalidArgument


class Hand:
    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time


def epochs_run(budget: TimeBudget, clock: Hand, lengths: list[float]) -> int:
    """How many of these epochs a training loop runs that asks after each."""
    for number, seconds in enumerate(lengths, 1):
        clock.time += seconds
        if budget.spent_by(seconds):
            return number
    return len(lengths)


def test_the_last_epoch_that_fits_is_the_last() -> None:
    clock = Hand()
    budget = TimeBudget(1000, reserve=100 / 1.1, clock=clock)
    clock.time += 50  # the pull
    # 850 s are left for training: eight epochs of 100 s take 800, a ninth would end 50 s late.
    assert epochs_run(budget, clock, [100.0] * 20) == 8
    assert budget.elapsed == 850


def test_it_never_ends_late_when_epochs_do_not_grow_past_the_margin() -> None:
    for total in range(300, 1500, 7):
        clock = Hand()
        budget = TimeBudget(total, reserve=100, clock=clock)
        lengths = [100 * 1.05**n for n in range(40)]
        ran = epochs_run(budget, clock, lengths)
        assert ran == 1 or budget.elapsed + 100 <= total
        if ran < 40:
            assert budget.elapsed + 1.1 * lengths[ran - 1] + 110 > total - 1e-6, "it gave up early"


def test_without_a_measured_night_a_fifth_is_kept() -> None:
    clock = Hand()
    assert TimeBudget(1000, clock=clock).left == 800
    assert TimeBudget(1000, reserve=10, clock=clock).left == pytest.approx(989)


def test_without_a_budget_nothing_stops() -> None:
    clock = Hand()
    budget = TimeBudget(None, reserve=5, clock=clock)
    assert epochs_run(budget, clock, [1e6] * 5) == 5


def test_a_slow_epoch_is_remembered() -> None:
    clock = Hand()
    budget = TimeBudget(900, reserve=0, clock=clock)
    assert epochs_run(budget, clock, [400.0, 100.0, 100.0]) == 2, "400 x 1.1 no longer fits in 400"


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("45m", 2700), ("2h", 7200), ("1h30m", 5400), ("0.5h", 1800)]
)
def test_times_are_read(text: str, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "90", "h", "-5m", "5 m", "1d", "0s", "2h x", "٢h"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="is not a time"):
        duration(text)
