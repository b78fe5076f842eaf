"""Rates and quotas against a literal account of every request; refused attempts by address."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from resight.errors import ResourceExhausted
from service.access.attempts import OVERALL, Attempts, address_of
from service.access.limits import RequestLimits
from service.domain.principal import EVERYTHING, Principal


class Hand:
    """A clock and a stopwatch that are moved together."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.start = datetime(2026, 1, 1, 23, 50, tzinfo=UTC)

    def now(self) -> datetime:
        return self.start + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        return self.seconds


def somebody(name: str = "key:a", minute: int | None = None, day: int | None = None) -> Principal:
    return Principal(name, "key", EVERYTHING, requests_per_minute=minute, requests_per_day=day)


def made(hand: Hand, minute: int = 0, day: int = 0, **more: int) -> RequestLimits:
    return RequestLimits(hand, per_minute=minute, per_day=day, monotonic=hand.monotonic, **more)


def test_a_rate_equals_a_bucket_filled_by_hand() -> None:
    hand, rng = Hand(), np.random.default_rng(0)
    limits, left = made(hand, minute=30), 30.0
    refused = 0
    for _ in range(2000):
        pause = float(rng.exponential(1.5))
        hand.seconds += pause
        left = min(30.0, left + pause * 0.5)
        if left >= 1:
            limits.take(somebody())
            left -= 1
            continue
        refused += 1
        with pytest.raises(ResourceExhausted) as full:
            limits.take(somebody())
        assert full.value.reason == "RATE_LIMITED"
        assert full.value.retry_after == pytest.approx((1 - left) / 0.5)
    assert 100 < refused < 1900


def test_waiting_as_told_is_enough() -> None:
    hand = Hand()
    limits = made(hand, minute=1)
    limits.take(somebody())
    with pytest.raises(ResourceExhausted) as full:
        limits.take(somebody())
    hand.seconds += full.value.retry_after + 1e-6
    limits.take(somebody())


def test_a_batch_takes_as_many_as_it_has_queries() -> None:
    hand = Hand()
    limits = made(hand, minute=10, day=25)
    limits.take(somebody(), 10)
    with pytest.raises(ResourceExhausted):
        limits.take(somebody())
    hand.seconds += 6.1
    limits.take(somebody())
    hand.seconds += 60
    # Larger than the bucket: taken when it is full, and owed.
    limits.take(somebody(), 14)
    hand.seconds += 20
    with pytest.raises(ResourceExhausted, match="25 times a day"):
        limits.take(somebody())


def test_the_quota_begins_again_at_midnight() -> None:
    hand = Hand()
    limits = made(hand, day=3)
    for _ in range(3):
        limits.take(somebody())
    with pytest.raises(ResourceExhausted) as full:
        limits.take(somebody())
    assert full.value.reason == "QUOTA_EXCEEDED"
    assert full.value.retry_after == 600
    hand.seconds += 600
    limits.take(somebody())


def test_their_own_bounds_stand_in_for_the_settings() -> None:
    hand = Hand()
    limits = made(hand, minute=1, day=1)
    for _ in range(5):
        limits.take(somebody("key:b", minute=100, day=100))
    limits.take(somebody("key:c"))
    with pytest.raises(ResourceExhausted):
        limits.take(somebody("key:c"))
    for _ in range(50):
        made(hand).take(somebody("key:c"))


def test_nobody_uses_up_what_is_another_s_and_memory_is_bounded() -> None:
    hand = Hand()
    limits = made(hand, minute=1, most=100)
    for number in range(1000):
        limits.take(somebody(f"key:{number}"))
    with pytest.raises(ResourceExhausted):
        limits.take(somebody("key:999"))
    assert len(limits._uses) == 100


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:10.0.0.7:4711", "10.0.0.7"),
        ("10.0.0.7:4711", "10.0.0.7"),
        ("ipv6:%5B2001:db8::1%5D:5", "2001:db8::/64"),
        ("ipv6:[2001:db8::ffff]:5", "2001:db8::/64"),
        ("2001:db8:0:1::2:80", "2001:db8:0:1::/64"),
        ("ipv6:[::ffff:10.0.0.7]:80", "10.0.0.7"),
        ("unix:/run/socket", "unix:/run/socket"),
        ("", ""),
    ],
)
def test_attempts_are_counted_by_address(peer: str, address: str) -> None:
    assert address_of(peer) == address


def test_attempts_beyond_the_bound_wait_and_memory_is_bounded() -> None:
    hand = Hand()
    attempts = Attempts(5, monotonic=hand.monotonic, most=50)
    waits = [attempts.wait(f"10.0.0.1:{port}") for port in range(8)]
    assert waits[:5] == [0.0] * 5
    assert all(wait == pytest.approx(12.0) for wait in waits[5:])
    assert attempts.wait("10.0.0.2:1") == 0.0
    hand.seconds += 12.1
    assert attempts.wait("10.0.0.1:1") == 0.0
    for number in range(200):
        attempts.wait(f"10.1.{number}.1:1")
    assert len(attempts._by_address) == 50


def test_many_addresses_are_bounded_together() -> None:
    hand = Hand()
    attempts = Attempts(5, monotonic=hand.monotonic)
    passed = sum(attempts.wait(f"10.0.{number}.1:1") == 0.0 for number in range(250))
    assert passed == 5 * OVERALL
    unbounded = Attempts(0, monotonic=hand.monotonic)
    assert not any(unbounded.wait("10.0.0.1:1") for _ in range(1000))
