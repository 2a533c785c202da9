"""Training inputs changed at random from step to step, so that a model sees more sessions than there are."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from alkd_jax.models import Params
from alkd_jax.objectives import Loss
from alkd_jax.types import Batch


def augmented(loss: Loss, *, drop: float = 0.0, crop: float = 0.0) -> Loss:
    """The loss of changed inputs: some of their items left out, some inputs begun later. Targets stay.

    Args:
        loss: of a batch.
        drop: chance of an item being left out, in [0, 1); an input's last always stays.
        crop: chance of an input beginning at any of its items, each as likely, in [0, 1].

    Raises:
        ValueError: a chance is out of range.

    Reference:
        Tan et al., Improved recurrent neural networks for session-based recommendations, DLRS 2016, dropout of items.
    """
    if not 0.0 <= drop < 1.0 or not 0.0 <= crop <= 1.0:
        raise ValueError(f"drop is {drop} and crop {crop}; expected in [0, 1) and [0, 1]")

    def changed(params: Params, batch: Batch, key: jax.Array) -> Float[Array, ""]:
        loss_key, drop_key, crop_key, start_key = jax.random.split(key, 4)
        length = batch.mask.sum(1, keepdims=True)
        place = jnp.arange(batch.mask.shape[1])[None]
        cut = jax.random.bernoulli(crop_key, crop, length.shape)
        start = jnp.floor(jax.random.uniform(start_key, length.shape) * length)
        kept = jax.random.bernoulli(drop_key, 1 - drop, batch.mask.shape) & (place >= jnp.where(cut, start, 0))
        mask = batch.mask & (kept | (place == length - 1))
        order = jnp.argsort(~mask, axis=1, stable=True)
        mask = jnp.take_along_axis(mask, order, 1)
        items = jnp.where(mask, jnp.take_along_axis(batch.items, order, 1), 0)
        return loss(params, dataclasses.replace(batch, items=items, mask=mask), loss_key)

    return changed
