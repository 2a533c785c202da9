"""Each check accepts both ends of what it allows, and names the argument, its value and what was expected."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alkd_jax.checks import (
    check_at_least,
    check_between,
    check_count,
    check_finite,
    check_one_of,
    check_padding,
    check_ranks,
    check_span,
    check_where,
)

WHOLE = [1, np.int8(2), np.array(3), jnp.int32(4), 10**400]
NOT_WHOLE = [2.5, float("nan"), float("inf"), True, np.True_, np.float64(3), "3", None, [3], np.array([3, 4])]


@pytest.mark.parametrize(
    ("check", "good", "bad", "message"),
    [
        (lambda x: check_at_least(1, size=x), [1, 2.5], [0, float("nan")], "size is {}; expected at least 1"),
        (lambda x: check_at_least(1, size=x), [], [float("inf")], "size is {}; expected at least 1 and finite"),
        (
            lambda x: check_count(1, k=x),
            WHOLE,
            [0],
            "k is {}; expected at least 1",
        ),
        (lambda x: check_count(1, k=x), [], NOT_WHOLE, "k is {!r}; expected a whole number of at least 1"),
        (lambda x: check_between(0, 1, share=x), [0, 1], [-0.1, 1.1], "share is {}; expected from 0 to 1"),
        (lambda x: check_one_of("mode", x, ("a", "b")), ["a", "b"], ["c"], "mode is '{}'; expected 'a' or 'b'"),
    ],
)
@pytest.mark.usefixtures("unchecked_types")
def test_numbers_and_choices(check, good, bad, message):
    for value in good:
        check(value)
    for value in bad:
        with pytest.raises(ValueError, match="expected") as error:
            check(value)
        assert str(error.value) == message.format(value)


@pytest.mark.parametrize("array_of", [np.array, jnp.array, list])
def test_ids_stay_in_their_span(array_of):
    check_span("items", array_of([1, 3]), 1, 3)
    check_span("items", array_of([]), 1, 3)
    for ids, text in (([0, 2], "0..2"), ([[1, 2], [4, 1]], "1..4")):
        with pytest.raises(ValueError, match=rf"^items span {text}; expected 1\.\.3$"):
            check_span("items", array_of(ids), 1, 3)


def test_the_first_bad_number_is_named_unless_values_are_traced():
    gain = jnp.array([[1.0, 2.0], [-3.0, -4.0]])
    with pytest.raises(ValueError, match=r"^gain\[1, 0\] is -3; expected a positive number$"):
        check_where(gain > 0, "gain", gain, "a positive number")

    @jax.jit
    def traced(gain):
        check_where(gain > 0, "gain", gain, "a positive number")
        return gain

    assert traced(gain).shape == (2, 2)


@pytest.mark.parametrize("array_of", [np.array, jnp.array])
def test_ranks_are_whole_numbers_from_1_to_the_largest_int32(array_of):
    check_ranks("ranks", array_of([[1, 2], [3, 2**31 - 1]]))
    check_ranks("ranks", array_of([], np.int32))
    for wrong, message in (
        ([1, 0], r"ranks\[1\] is 0; expected at least 1 and at most 2147483647"),
        ([[1, 2], [-3, 4]], r"ranks\[1, 0\] is -3"),
        ([1.0, 2.0], "ranks are numbers of type float"),
        ([True], "ranks are numbers of type bool"),
    ):
        with pytest.raises(ValueError, match=message):
            check_ranks("ranks", array_of(wrong))
    with pytest.raises(ValueError, match=r"ranks\[0\] is 2147483648"):
        check_ranks("ranks", np.array([2**31]))


def test_ids_that_are_not_whole_are_refused():
    for wrong in ([1.0, 2.9], [True]):
        with pytest.raises(ValueError, match=r"items are numbers of type .*; expected an integer type"):
            check_span("items", np.array(wrong), 1, 3)


@given(
    shape=st.lists(st.integers(0, 4), min_size=1, max_size=3),
    wrong=st.lists(st.sampled_from([np.nan, np.inf, -np.inf]), max_size=3),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_first_number_that_is_not_finite_is_named(shape, wrong, seed):
    rng = np.random.default_rng(seed)
    array = rng.normal(size=shape).astype(np.float32)
    if not array.size or not wrong:
        check_finite("table", array)
        return
    array.flat[rng.integers(0, array.size, len(wrong))] = wrong
    first = [int(i) for i in np.argwhere(~np.isfinite(array))[0]]
    with pytest.raises(ValueError, match="expected a finite number") as error:
        check_finite("table", array)
    assert str(error.value) == f"table{first} is {array[tuple(first)]:g}; expected a finite number"


def test_numbers_on_a_device_are_looked_at_unless_they_are_traced():
    with pytest.raises(ValueError, match=r"table\[1, 0\] is nan"):
        check_finite("table", jnp.array([[1.0, 2.0], [jnp.nan, 3.0]], jnp.bfloat16))
    jax.eval_shape(lambda table: check_finite("table", table) or check_span("ids", table, 1, 3), jnp.ones(2))


def test_one_list_far_longer_than_the_others_is_named():
    """Padded, the lists would take 1.2 GB; the same number of items in lists of one length takes 0.4 MB."""
    names = [f"file:{line}" for line in range(1, 3_002)]
    check_padding([34] * 3_001, names)
    check_padding([100_000] * 2, names)
    check_padding([], [])
    with pytest.raises(
        ValueError, match="file:3001: number of items is 100000 in one of 3001 lists, which have 103000"
    ):
        check_padding([1] * 3_000 + [100_000], names)


def test_constants_are_checked_while_a_function_is_traced():
    ids = jnp.arange(5)

    def f(x):
        check_span("ids", ids, 0, 3)
        return x

    with pytest.raises(ValueError, match=r"ids span 0\.\.4; expected 0\.\.3"):
        jax.jit(f)(jnp.ones(2))
    jax.jit(lambda x: (check_finite("ids", ids / 2.0), check_ranks("ids", ids + 1), x)[2])(jnp.ones(2))
