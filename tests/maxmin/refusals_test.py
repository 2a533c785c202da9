"""What is no game, no policy, or beyond the range of float32 is refused by name; a search never fails silently."""

import jax.numpy as jnp
import numpy as np
import pytest

from alkd_jax import maxmin
from alkd_jax.maxmin.game import check_solution

GAIN = np.array([4.0, 3.0, 2.0])


@pytest.mark.parametrize(
    ("arrays", "counts", "message"),
    [
        ((GAIN, GAIN / 2, GAIN), (-1, 1), "num_effective is -1; expected at least 0"),
        (
            (GAIN, GAIN / 2, GAIN),
            (2, 2),
            "num_effective 2 [+] num_similar 2 is 4; expected at most 3, the number of instances",
        ),
        ((GAIN, GAIN / 2, GAIN * [1, 0, 1]), (1, 1), r"incorrect_loss\[1\] is 0; expected a positive"),
        ((GAIN * [1, 1, np.nan], GAIN / 2, GAIN), (1, 1), r"effective_gain\[2\] is nan; expected a positive"),
        ((GAIN, GAIN * [0.5, 1, 0.5], GAIN), (1, 1), r"similar_gain\[1\] is 3; expected less than effective_gain"),
        ((GAIN, GAIN[:2] / 2, GAIN), (1, 1), r"shapes are effective_gain \[3\], similar_gain \[2\]"),
        ((GAIN[:0], GAIN[:0], GAIN[:0]), (0, 0), "N ≥ 1"),
    ],
)
def test_what_is_no_game_is_refused_before_tracing(arrays, counts, message):
    counts = dict(zip(("num_effective", "num_similar"), counts, strict=True))
    for kind in (np.asarray, jnp.asarray):
        converted = [kind(array) for array in arrays]
        with pytest.raises(ValueError, match=message):
            maxmin.closed_form(*converted, **counts)
        with pytest.raises(ValueError, match=message):
            maxmin.worst_case(kind(np.full(len(arrays[0]), 1 / 3)), *converted, **counts)


def test_infinite_logarithms_are_refused():
    with pytest.raises(ValueError, match=r"similar_gain\[0\] is -inf; expected a finite logarithm"):
        maxmin.closed_form(GAIN, GAIN - [np.inf, 1, 1], GAIN, num_effective=1, num_similar=1, log_gains=True)


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ([0.5, 0.6, -0.1], r"policy\[2\] is -0.1; expected a probability"),
        ([0.5, 0.1, 0.1], "the sum of policy is 0.7; expected 1"),
        ([0.5, 0.5], r"policy has shape \[2\]; expected \[3\]"),
    ],
)
def test_what_is_no_policy_is_refused(policy, message):
    with pytest.raises(ValueError, match=message):
        maxmin.worst_case(np.array(policy), GAIN, GAIN / 2, GAIN, num_effective=1, num_similar=1)


@pytest.mark.parametrize("call", [maxmin.solve, maxmin.closed_form])
@pytest.mark.parametrize(
    ("gain", "log_gains", "message"),
    [
        (
            np.array([1e300, 1.0, 2.0]),
            False,
            r"effective_gain\[0\] is 1e\+300; expected a positive, finite number",
        ),
        (jnp.float32([3e38, 1.0, 2.0]), False, r"effective_gain\[0\] is 3e\+38"),
        (jnp.float32([1.0, 2e-38, 2.0]), False, r"effective_gain\[1\] is 2e-38"),
        (
            np.array([1.0, 2.0, 1e30]),
            True,
            r"effective_gain\[2\] is 1e\+30; expected a finite logarithm from",
        ),
        (jnp.float32([1.0, -2e4, 1.0]), True, r"effective_gain\[1\] is -20000"),
    ],
)
def test_gains_beyond_the_range_of_float32_are_refused(call, gain, log_gains, message):
    similar = gain - 1 if log_gains else gain / 2
    with pytest.raises(ValueError, match=message):
        call(gain, similar, similar, num_effective=1, num_similar=1, log_gains=log_gains)


@pytest.mark.parametrize("wrong", [1.5, True, jnp.float32(1), "1"])
@pytest.mark.usefixtures("unchecked_types")
def test_a_number_of_labels_that_is_not_whole_is_refused(wrong):
    for counts in ({"num_effective": wrong, "num_similar": 1}, {"num_effective": 1, "num_similar": wrong}):
        with pytest.raises(ValueError, match="expected a whole number"):
            maxmin.worst_case(np.full(3, 1 / 3), GAIN, GAIN / 2, GAIN, **counts)


@pytest.mark.usefixtures("unchecked_types")
def test_a_search_without_a_proof_is_an_error():
    number = jnp.float32(1)
    fields = dict.fromkeys(("log_policy", "value", "lower", "log_scale", "support_size", "theta", "case"), number)
    solution = maxmin.Solution(**fields, upper=jnp.float32(np.inf), num_passes=jnp.int32(1060))
    with pytest.raises(FloatingPointError, match="upper of the solution is inf"):
        check_solution(solution)
    assert check_solution(solution.replace(num_passes=jnp.int32(0)))


def test_a_worst_case_beyond_float32_is_an_error():
    gain, loss = np.array([650.0, -200.0, -450.0]), np.array([0.0, 200.0, 450.0])
    with pytest.raises(FloatingPointError, match=r"lower of the solution is nan; expected a finite number"):
        maxmin.solve(gain, gain - 1, loss, num_effective=0, num_similar=0, log_gains=True)


def test_rad_bc_refuses_too_many_correct_instances():
    with pytest.raises(ValueError, match="num_correct 4 is 4; expected at most 3, the number of instances"):
        maxmin.rad_bc(GAIN, GAIN, num_correct=4)
