"""Each check accepts both ends of what it allows, and names the argument, its value and what was expected."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alkd_jax.checks import check_at_least, check_between, check_one_of, check_span, check_where


@pytest.mark.parametrize(
    ("check", "good", "bad", "message"),
    [
        (lambda x: check_at_least(1, size=x), [1, 2.5], [0, float("nan")], "size is {}; expected at least 1"),
        (lambda x: check_between(0, 1, share=x), [0, 1], [-0.1, 1.1], "share is {}; expected from 0 to 1"),
        (lambda x: check_one_of("mode", x, ("a", "b")), ["a", "b"], ["c"], "mode is '{}'; expected 'a' or 'b'"),
    ],
)
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
