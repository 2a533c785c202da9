"""Late interaction: a session has one vector per item, and its score of an item is the soft maximum over them."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from alkd_jax.models.encoder import zero_padding_row
from alkd_jax.models.fpmc import xavier_normal_table
from alkd_jax.ops import lookup
from alkd_jax.ops.products import linear

_MASKED_SCORE = -1e9
"""Added to the score of a position without an item; its exponential is 0 in float32."""


class LateInteraction(nn.Module):
    """Item-to-item factors that are pooled after scoring, so that the rank of the score matrix is not limited to D.

    ``score(s, v) = log Σ_j λʲ exp(X_j · Y_v + a_j) + b_v``, where j counts the steps before the session's end: a
    mixture of the predictions of the session's items, in which recent items have more weight. With ``shared``, each
    item is described by both of its rows, ``E_x = [X_x, Y_x]``, in the session and as a candidate:
    ``score(s, v) = log Σ_j λʲ exp(E_jᵀ M E_v + a_j) + b_v``. The last two columns of the session vectors and of the
    item table contain the biases, so that a score is a plain product. Parameters: ``2 (V + 1) (D + 1)``, and ``4 D²``
    more with ``shared``.

    Attributes:
        num_items: items are ``1..num_items``.
        dim: width D of each table.
        shared: whether both tables describe an item, in the session and as a candidate; vectors then have width 2 D.
        recency: λ in (0, 1], the decay of an item's weight with each step to the session's end.
        item_dropout: probability that an input item is dropped in training; the last item is never dropped.

    Reference:
        Khattab and Zaharia, ColBERT, SIGIR 2020, late interaction; here with the soft maximum instead of the maximum.
    """

    num_items: int
    dim: int
    shared: bool = False
    recency: float = 1.0
    item_dropout: float = 0.0

    def setup(self) -> None:
        """Declares the two item tables, their biases, and the interaction matrix M of shared tables."""
        if not 0.0 < self.recency <= 1.0:
            raise ValueError(f"recency is {self.recency}; expected a number in (0, 1]")
        shape = (self.num_items + 1, self.dim)
        self.input_embedding = self.param("input_embedding", xavier_normal_table, shape)
        self.output_embedding = self.param("output_embedding", xavier_normal_table, shape)
        self.input_bias = self.param("input_bias", nn.initializers.zeros, shape[:1])
        self.output_bias = self.param("output_bias", nn.initializers.zeros, shape[:1])
        if self.shared:
            self.interaction_kernel = self.param("interaction_kernel", near_identity, (2 * self.dim, 2 * self.dim))

    def __call__(
        self, items: Int[Array, "B L"], mask: Bool[Array, "B L"], *, train: bool = False
    ) -> Float[Array, "B L D"]:
        """Returns one vector per item; positions without an item do not contribute to scores."""
        steps_to_end = mask.sum(1, keepdims=True) - jnp.cumsum(mask, axis=1)
        if train and self.item_dropout > 0:
            is_kept = jax.random.bernoulli(self.make_rng("dropout"), 1 - self.item_dropout, mask.shape)
            mask = mask & (is_kept | (steps_to_end == 0))
        vectors = lookup.embedding_lookup(self.input_embedding, items)
        if self.shared:
            pairs = jnp.concatenate([vectors, lookup.embedding_lookup(self.output_embedding, items)], axis=-1)
            vectors = linear(pairs, self.interaction_kernel)
        vectors = jnp.where(mask[..., None], vectors, 0.0)
        log_weight = lookup.embedding_lookup(self.input_bias, items) + math.log(self.recency) * steps_to_end
        bias = jnp.where(mask, log_weight, _MASKED_SCORE)
        return jnp.concatenate([vectors, bias[..., None], jnp.ones_like(bias)[..., None]], axis=-1)

    def item_embeddings(self) -> Float[Array, "V D"]:
        """Returns the table that scores items: their vectors, a column of ones, and their biases; row 0 is padding."""
        tables = [self.input_embedding, self.output_embedding] if self.shared else [self.output_embedding]
        bias = self.output_bias[:, None]
        return zero_padding_row(jnp.concatenate([*tables, jnp.ones_like(bias), bias], axis=1))


def near_identity(key: jax.Array, shape: tuple[int, int]) -> Float[Array, "D D"]:
    """Initial values of M, the identity plus N(0, 0.1²): an item is similar to itself, up to learned differences."""
    return jnp.eye(*shape) + 0.1 * jax.random.normal(key, shape)
