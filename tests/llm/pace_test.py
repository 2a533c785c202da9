"""How many requests are in flight: few where a server answers them one by one, fewer after timeouts."""

import pytest

from alkd_jax.llm.rate_limits import Limits
from tests.helpers.clocks import Clock, pacer
from tests.helpers.fault_server import completion, faultless, http
from tests.helpers.llm_questions import run
from tests.helpers.providers import OneSlot


def test_a_server_with_one_slot_answers_everything(tmp_path):
    """With sixteen in flight at once the last would wait for twice the time limit."""
    limits = {"in_flight": (1, 4, 16), "total_s": 1.2}
    report, ledger, server, _ = run(tmp_path, OneSlot(0.15), 24, limits=limits)
    assert report.statuses == {"ok": 24}
    assert len(server.calls) < 24 + 8
    assert server.cost <= ledger.confirmed + ledger.possible


def test_timeouts_halve_the_slots_once_for_each_flight():
    clock = Clock()
    p = pacer(clock, in_flight=(1, 16, 64))
    for _ in range(5):
        p.record_timeout(-1.0 if p.decreases else 0.0)
    assert (p.slots, p.decreases) == (8, 1)
    for flight in range(1, 6):
        clock.now = 10.0 * flight
        p.record_timeout(clock.now)
    assert p.slots == 1
    assert p.paused_until < 0


@pytest.mark.parametrize(("seconds", "slots"), [(10, 9), (80, 8)])
def test_slots_grow_only_while_answers_are_quick(seconds, slots):
    p = pacer(Clock(), in_flight=(1, 8, 64), total_s=300.0)
    p.record_success(0, seconds=seconds)
    assert p.slots == slots
    assert Limits().total_s == 300


def test_an_answer_that_comes_late_within_the_time_limit_is_taken(tmp_path):
    report, ledger, server, _ = run(tmp_path, lambda c: [1.5, *faultless(c)], 1, limits={"total_s": 60.0})
    assert (report.statuses, len(server.calls), ledger.possible) == ({"ok": 1}, 1, 0)


@pytest.mark.parametrize(("prompt", "is_warned"), [(256, True), (1100, False)])
def test_a_prompt_that_the_server_cuts_is_warned_of(tmp_path, prompt, is_warned):
    usage = {"prompt_tokens": prompt, "completion_tokens": 90}
    report, _, _, _ = run(tmp_path, lambda c: [http(completion(c, usage=usage))], 3)
    assert report.statuses == {"ok": 3}
    assert any("cuts prompts to its context" in text for text in report.warnings) == is_warned
