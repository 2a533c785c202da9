"""FPMC for anonymous sessions: the mean of the items' input embeddings is the session vector."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from alkd_jax.ops import lookup
from alkd_jax.ops.packed_rows import draw_table


def xavier_normal_table(key: jax.Array, shape: tuple[int, int]) -> Any:
    """Xavier-normal initial values ``N(0, 2 / (V + D))`` for the items; 0 in the padding row."""
    num_rows, dim = shape
    scale = (2.0 / (num_rows - 1 + dim)) ** 0.5
    return draw_table(lambda key, shape: jax.random.normal(key, shape) * scale, key, shape)


class FPMC(nn.Module):
    """FPMC without a user factor, as ALKDRec uses it.

    ``u_s = 1/|s| Σ_{v ∈ s} X_v``, ``score(s, v) = u_s · Y_v``. Parameters: ``2 (V + 1) D``.

    Attributes:
        num_items: items are ``1..num_items``.
        dim: width D.

    Reference:
        Rendle et al., Factorizing personalized Markov chains, WWW 2010; Du et al., ALKDRec, AAAI 2025.
    """

    num_items: int
    dim: int
    separate_tables = True
    reads_padding = False

    def setup(self) -> None:
        """Declares the two item tables."""
        shape = (self.num_items + 1, self.dim)
        self.input_embedding = self.param("input_embedding", xavier_normal_table, shape)
        self.output_embedding = self.param("output_embedding", xavier_normal_table, shape)

    def __call__(
        self, items: Int[Array, "B L"], mask: Bool[Array, "B L"], *, train: bool = False
    ) -> Float[Array, "B D"]:
        """Returns u, the mean of the real items' input embeddings; zero for an empty session. Has no dropout."""
        return self.encode_rows(lookup.embedding_lookup(self.input_embedding, items), mask, train=train)

    def encode_rows(
        self, rows: Float[Array, "B L D"], mask: Bool[Array, "B L"], *, train: bool = False
    ) -> Float[Array, "B D"]:
        """Returns u from the rows of the input table at the items."""
        vectors = jnp.where(mask[..., None], rows, 0.0)
        return vectors.sum(1) / jnp.maximum(mask.sum(1, keepdims=True), 1)

    def encode_masked_rows(
        self, vectors: Float[Array, "B L D"], mask: Bool[Array, "B L"], *, train: bool = False
    ) -> Float[Array, "B D"]:
        """Returns u from these rows, which are 0 where there is no item, in the form that is fast on accelerators."""
        # A sum over an axis would write each partial sum on a TPU.
        total = functools.reduce(jnp.add, [vectors[:, position] for position in range(vectors.shape[1])])
        return total / jnp.maximum(mask.sum(1, keepdims=True), 1)

    def item_embeddings(self) -> Float[Array, "V D"]:
        """Returns the output table Y; row 0 is padding."""
        return self.output_embedding
