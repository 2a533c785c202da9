"""Late interaction: a session keeps one vector an item, and its score of an item is their soft maximum."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from alkd_jax.models.encoder import zero_padding_row
from alkd_jax.models.fpmc import xavier_normal_table
from alkd_jax.ops import lookup

_ABSENT = -1e9
"""Added to the score of a position without an item: exp of it is 0 in float32."""


class Late(nn.Module):
    """Item-to-item factors pooled after scoring, so that the score matrix is not bound to rank D.

    ``score(s, v) = log Σ_j λʲ exp(X_j · Y_v + a_j) + b_v``, j steps before the session's end: a mixture of what each
    item says, the recent ones with more weight. With ``shared``, an item's two rows stand side by side and serve on
    both sides, ``E_x = [X_x, Y_x]``, ``score(s, v) = log Σ_j λʲ exp(E_jᵀ M E_v + a_j) + b_v``. The last two columns of
    session vectors and item table carry the biases, so both are plain tables to whoever scores. Parameters:
    ``2 (V + 1) (D + 1)``, and ``4 D²`` more with ``shared``.

    Attributes:
        num_items: items are ``1..num_items``.
        dim: width D of each table.
        shared: both tables describe an item on both sides; products are then 2 D wide.
        recency: λ in (0, 1], weight of an item for each step before the session's end.
        item_dropout: chance of an input item being left out in training; a session keeps at least its last.

    Reference:
        Khattab and Zaharia, ColBERT, SIGIR 2020, late interaction; the soft maximum in place of the maximum.
    """

    num_items: int
    dim: int
    shared: bool = False
    recency: float = 1.0
    item_dropout: float = 0.0

    def setup(self) -> None:
        """Declares the two item tables, their biases, and how shared tables meet."""
        if not 0.0 < self.recency <= 1.0:
            raise ValueError(f"recency is {self.recency}; expected in (0, 1]")
        shape = (self.num_items + 1, self.dim)
        self.input_embedding = self.param("input_embedding", xavier_normal_table, shape)
        self.output_embedding = self.param("output_embedding", xavier_normal_table, shape)
        self.input_bias = self.param("input_bias", nn.initializers.zeros, shape[:1])
        self.output_bias = self.param("output_bias", nn.initializers.zeros, shape[:1])
        if self.shared:
            self.meeting_kernel = self.param("meeting_kernel", near_identity, (2 * self.dim, 2 * self.dim))

    def __call__(
        self, items: Int[Array, "B L"], mask: Bool[Array, "B L"], *, train: bool = False
    ) -> Float[Array, "B L D"]:
        """Returns a vector an item; positions without an item score nothing."""
        steps_to_end = mask.sum(1, keepdims=True) - jnp.cumsum(mask, axis=1)
        if train and self.item_dropout > 0:
            kept = jax.random.bernoulli(self.make_rng("dropout"), 1 - self.item_dropout, mask.shape)
            mask = mask & (kept | (steps_to_end == 0))
        vectors = lookup.embedding_lookup(self.input_embedding, items)
        if self.shared:
            both = jnp.concatenate([vectors, lookup.embedding_lookup(self.output_embedding, items)], axis=-1)
            vectors = (both.reshape(-1, 2 * self.dim) @ self.meeting_kernel).reshape(both.shape)
        vectors = jnp.where(mask[..., None], vectors, 0.0)
        weight = lookup.embedding_lookup(self.input_bias, items) + math.log(self.recency) * steps_to_end
        bias = jnp.where(mask, weight, _ABSENT)
        return jnp.concatenate([vectors, bias[..., None], jnp.ones_like(bias)[..., None]], axis=-1)

    def item_embeddings(self) -> Float[Array, "V D"]:
        """Returns the items' vectors with a column of ones and their biases; row 0 is padding."""
        tables = [self.input_embedding, self.output_embedding] if self.shared else [self.output_embedding]
        bias = self.output_bias[:, None]
        return zero_padding_row(jnp.concatenate([*tables, jnp.ones_like(bias), bias], axis=1))


def near_identity(key: jax.Array, shape: tuple[int, int]) -> Float[Array, "D D"]:
    """The identity and N(0, 0.1²): an item is near itself, and the two sides may grow apart."""
    return jnp.eye(*shape) + 0.1 * jax.random.normal(key, shape)
