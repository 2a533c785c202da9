"""Augmented inputs are sub-sequences that keep their last item, with the given probabilities."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alkd_jax.objectives import as_loss
from alkd_jax.training.augmentation import Augmented
from alkd_jax.types import Batch


def augmented_inputs(key, items, **options):
    """The inputs that the loss gets, as digits from left to right, 0 where there is no item; for many keys."""
    items = jnp.array([items])
    one = jnp.ones(1, jnp.int32)

    def loss(params, batch, key):
        ten = 10.0 ** jnp.arange(3, -1, -1)
        good = (batch.mask == (batch.items > 0)).all() & (batch.target == 1).all()
        return jnp.where(good, (batch.items[0] * ten).sum(), -1.0)

    batch = Batch(items, items > 0, one - 1, one, jnp.ones(1), one - 1)
    changed = functools.partial(Augmented(as_loss(loss), **options), None, batch)
    return np.asarray(jax.jit(jax.vmap(changed))(jax.random.split(key, 4000))).astype(int)


def test_dropped_items_close_up_and_the_last_stays():
    inputs = augmented_inputs(jax.random.key(0), [5, 6, 7, 0], drop=0.25)
    share = {digits: np.mean(inputs == digits) for digits in (5670, 5700, 6700, 7000)}
    assert sum(share.values()) == 1
    np.testing.assert_allclose(list(share.values()), [9 / 16, 3 / 16, 3 / 16, 1 / 16], atol=0.03)
    assert (augmented_inputs(jax.random.key(1), [4, 0, 0, 0], drop=0.9) == 4000).all()


def test_cropped_inputs_begin_at_any_item():
    inputs = augmented_inputs(jax.random.key(1), [5, 6, 7, 8], crop=0.5)
    share = {digits: np.mean(inputs == digits) for digits in (5678, 6780, 7800, 8000)}
    assert sum(share.values()) == 1
    np.testing.assert_allclose(list(share.values()), [0.625, 0.125, 0.125, 0.125], atol=0.03)


def test_nothing_changes_without_drop_and_crop():
    assert (augmented_inputs(jax.random.key(2), [5, 6, 7, 0]) == 5670).all()


@pytest.mark.parametrize("options", [{"drop": 1.0}, {"crop": -0.1}])
def test_impossible_probabilities_are_refused(options):
    with pytest.raises(ValueError, match="; expected"):
        Augmented(as_loss(lambda params, batch, key: jnp.float32(0.0)), **options)
