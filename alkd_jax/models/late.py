"""Late interaction: a session keeps one vector an item, and its score of an item is their soft maximum."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from alkd_jax.models.encoder import zero_padding_row
from alkd_jax.models.fpmc import xavier_normal_table

_ABSENT = -1e9
"""Added to the score of a position without an item: exp of it is 0 in float32."""


class Late(nn.Module):
    """Item-to-item factors pooled after scoring, so that the score matrix is not bound to rank D.

    ``score(s, v) = log Σ_{x ∈ s} exp(X_x · Y_v + a_x) + b_v``. The last two columns of session vectors and item table
    carry the biases, so both are plain tables to whoever scores. Parameters: ``2 (V + 1) (D + 1)``.

    Attributes:
        num_items: items are ``1..num_items``.
        dim: width D.
        item_dropout: chance of an input item being left out in training; a session keeps at least its last.

    Reference:
        Khattab and Zaharia, ColBERT, SIGIR 2020, late interaction; the soft maximum in place of the maximum.
    """

    num_items: int
    dim: int
    item_dropout: float = 0.0

    def setup(self) -> None:
        """Declares the two item tables and their biases."""
        shape = (self.num_items + 1, self.dim)
        self.input_embedding = self.param("input_embedding", xavier_normal_table, shape)
        self.output_embedding = self.param("output_embedding", xavier_normal_table, shape)
        self.input_bias = self.param("input_bias", nn.initializers.zeros, shape[:1])
        self.output_bias = self.param("output_bias", nn.initializers.zeros, shape[:1])

    def __call__(
        self, items: Int[Array, "B L"], mask: Bool[Array, "B L"], *, train: bool = False
    ) -> Float[Array, "B L D"]:
        """Returns a vector an item; positions without an item score nothing."""
        if train and self.item_dropout > 0:
            last = mask & (jnp.cumsum(mask, axis=1) == mask.sum(1, keepdims=True))
            kept = jax.random.bernoulli(self.make_rng("dropout"), 1 - self.item_dropout, mask.shape)
            mask = mask & (kept | last)
        vectors = jnp.where(mask[..., None], self.input_embedding[items], 0.0)
        bias = jnp.where(mask, self.input_bias[items], _ABSENT)
        return jnp.concatenate([vectors, bias[..., None], jnp.ones_like(bias)[..., None]], axis=-1)

    def item_embeddings(self) -> Float[Array, "V D"]:
        """Returns the output table with a column of ones and the items' biases; row 0 is padding."""
        bias = self.output_bias[:, None]
        return zero_padding_row(jnp.concatenate([self.output_embedding, jnp.ones_like(bias), bias], axis=1))
