"""Random changes of training inputs at every step, so that a model sees more sessions than there are."""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from alkd_jax.checks import check_between
from alkd_jax.models import Params
from alkd_jax.objectives import Loss
from alkd_jax.types import Batch


@flax.struct.dataclass
class Augmented:
    """The loss of augmented inputs: random items are dropped, and random inputs are cropped. Targets stay.

    Attributes:
        loss: the loss of a batch, an objective or what :func:`alkd_jax.objectives.as_loss` makes of a function.
        drop: probability that an item is dropped, in [0, 1); the last item of an input always stays.
        crop: probability that an input starts at a random one of its items, uniformly chosen, in [0, 1].

    Raises:
        ValueError: a probability is out of range.

    Reference:
        Tan et al., Improved recurrent neural networks for session-based recommendations, DLRS 2016, dropout of items.
    """

    loss: Loss
    drop: float = flax.struct.field(pytree_node=False, default=0.0)
    crop: float = flax.struct.field(pytree_node=False, default=0.0)

    def __post_init__(self) -> None:
        """Checks the probabilities."""
        if not 0.0 <= self.drop < 1.0:
            raise ValueError(f"drop is {self.drop}; expected at least 0 and below 1")
        check_between(0, 1, crop=self.crop)

    def __call__(self, params: Params, batch: Batch, key: jax.Array) -> Float[Array, ""]:
        """Returns the mean loss of a batch."""
        loss_key, drop_key, crop_key, start_key = jax.random.split(key, 4)
        length = batch.mask.sum(1, keepdims=True)
        position = jnp.arange(batch.mask.shape[1])[None]
        is_cropped = jax.random.bernoulli(crop_key, self.crop, length.shape)
        start = jnp.floor(jax.random.uniform(start_key, length.shape) * length)
        is_kept = jax.random.bernoulli(drop_key, 1 - self.drop, batch.mask.shape) & (
            position >= jnp.where(is_cropped, start, 0)
        )
        mask = batch.mask & (is_kept | (position == length - 1))
        order = jnp.argsort(~mask, axis=1, stable=True)
        mask = jnp.take_along_axis(mask, order, 1)
        items = jnp.where(mask, jnp.take_along_axis(batch.items, order, 1), 0)
        return self.loss(params, dataclasses.replace(batch, items=items, mask=mask), loss_key)
