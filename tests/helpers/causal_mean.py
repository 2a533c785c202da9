"""A causal backbone that is small enough to compute by hand."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from alkd_jax.models.encoder import at_last_item, zero_padding_row


class CausalMean(nn.Module):
    """The vector after each position is the mean of the items up to it."""

    num_items: int
    dim: int

    def setup(self):
        self.input_embedding = self.param("input_embedding", _table, (self.num_items + 1, self.dim))
        self.output_embedding = self.param("output_embedding", _table, (self.num_items + 1, self.dim))

    def encode_positions(self, items, mask, *, train=False):
        rows = jnp.where(mask[..., None], self.input_embedding[items], 0.0)
        return jnp.cumsum(rows, axis=1) / jnp.maximum(jnp.cumsum(mask, axis=1), 1)[..., None]

    def __call__(self, items, mask, *, train=False):
        return at_last_item(self.encode_positions(items, mask, train=train), mask)

    def item_embeddings(self):
        return self.output_embedding


def _table(key, shape):
    return zero_padding_row(jax.random.normal(key, shape))
