"""Limits on a clock of our own: rates, places, pauses, and how servers say when to come back."""

import asyncio
import email.utils

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alkd_jax.llm.rate_limits import Limits, RateLimiter, retry_after
from tests.helpers.clocks import Clock, pacer


def test_a_rate_lets_one_second_pass_at_once_and_no_more_than_its_share_afterwards():
    clock = Clock()
    rate = RateLimiter(600, clock)  # 10 a second
    waits = [rate.reserve(1) for _ in range(40)]
    assert waits[:11] == [0.0] * 11
    assert waits[-1] == pytest.approx(2.9)


def test_a_request_larger_than_the_burst_still_goes_and_delays_the_next():
    clock = Clock()
    rate = RateLimiter(60, clock)
    assert rate.reserve(30) == 0.0
    assert rate.reserve(1) == pytest.approx(29.0)


def test_tokens_not_used_are_given_back():
    clock = Clock()
    rate = RateLimiter(60, clock)
    rate.reserve(30)
    rate.refund(29)
    assert rate.reserve(1) == 0.0


@given(st.lists(st.integers(1, 50), min_size=1, max_size=60))
def test_no_window_holds_more_than_the_rate_and_one_burst(amounts):
    clock = Clock()
    rate = RateLimiter(600, clock)
    sent = [(rate.reserve(amount), amount) for amount in amounts]
    for start, _ in sent:
        window = sum(amount for at, amount in sent if start <= at < start + 6)
        assert window <= 10 * 6 + 10 + max(amounts)


def test_places_double_until_the_first_refusal_and_grow_slowly_afterwards():
    p = pacer(Clock(), in_flight=(2, 8, 64))
    for _ in range(8):
        p.record_success(0)
    assert p.slots == 16
    p.record_refusal(p.clock(), 0.1)
    assert p.slots == 8
    for _ in range(8):
        p.record_success(0)
    assert 8.8 < p.slots < 9.1
    for _ in range(5000):
        p.record_success(0)
    assert p.slots == 64


def test_refusals_of_one_flight_halve_the_places_once_and_later_ones_again():
    clock = Clock()
    p = pacer(clock, in_flight=(4, 40, 64))
    for _ in range(10):
        p.record_refusal(-1.0 if p.decreases else 0.0, 1.0)
    assert (p.slots, p.decreases, p.refusals) == (20, 1, 10)
    for flight in range(1, 10):
        clock.now = 10.0 * flight
        p.record_refusal(clock.now, 1.0)
    assert p.slots == 4


def test_a_pause_only_grows_and_everybody_keeps_it():
    clock = Clock()
    p = pacer(clock)
    p.record_refusal(0.0, 30.0)
    p.record_refusal(0.0, 5.0)
    assert p.paused_until == 30.0
    asyncio.run(p.acquire(10, lambda: False))
    assert clock.now >= 30.0


def test_waiting_longer_than_allowed_is_reported_and_so_is_waiting_in_vain():
    clock = Clock()
    p = pacer(clock, max_wait_s=100.0)
    assert p.record_refusal(0.0, 99.0) is None
    assert p.record_refusal(0.0, 101.0) == 101.0
    p = pacer(clock, max_wait_s=100.0)
    clock.now += 95.0
    assert p.record_refusal(clock.now, 4.0) is None
    assert p.record_refusal(clock.now, 6.0) is not None
    p.record_success(0)
    assert p.record_refusal(clock.now, 6.0) is None


@given(st.integers(1, 500))
def test_a_backoff_is_never_zero_nor_longer_than_a_minute(failures):
    assert 0 < pacer(Clock()).backoff(failures) <= 60


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after": email.utils.formatdate(1_000_060, usegmt=True)}, 60.0),
        ({"retry-after": email.utils.formatdate(999_000, usegmt=True)}, None),
        ({"x-ratelimit-reset-tokens": "1m30s"}, 90.0),
        ({"x-ratelimit-reset-tokens": "12ms"}, 0.012),
        ({"x-ratelimit-reset-requests": "6s", "x-ratelimit-reset-tokens": "2s"}, 6.0),
        ({"x-ratelimit-reset-requests": "6s", "x-ratelimit-remaining-requests": "40"}, None),
        ({"x-ratelimit-reset-requests": "3.5"}, 3.5),
        ({"x-ratelimit-reset-requests": "1h"}, 3600.0),
        ({"retry-after": "3600"}, 3600.0),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "0"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "1e400"}, None),
        ({"retry-after": "1e308"}, 366 * 86_400.0),
        ({"retry-after-ms": "1e308"}, 366 * 86_400.0),
        ({"retry-after": "Fri, 31 Dec 9999 23:59:59 GMT"}, 366 * 86_400.0),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "9" * 400 + "d"}, 366 * 86_400.0),
        ({"retry-after": "soon"}, None),
        ({"x-ratelimit-reset-tokens": "12 parsecs"}, None),
        ({}, None),
    ],
)
def test_headers_say_how_long_to_wait(headers, seconds):
    """Faults 1 and 3."""
    assert retry_after(headers, now=1_000_000.0) == (seconds if seconds is None else pytest.approx(seconds))


@given(st.text(max_size=20))
def test_no_header_makes_us_wait_for_ever_or_not_at_all(text):
    for name in ("retry-after", "retry-after-ms", "x-ratelimit-reset-tokens"):
        wait = retry_after({name: text}, now=0.0)
        assert wait is None or 0 < wait < float("inf")


@pytest.mark.parametrize("options", [{"in_flight": (5, 4, 64)}, {"in_flight": (0, 4, 64)}, {"rpm": 0}, {"total_s": -1}])
def test_senseless_limits_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        Limits(**options)
