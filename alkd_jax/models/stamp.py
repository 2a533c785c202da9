"""STAMP, short-term attention/memory priority: the form that ALKDRec uses, and the original."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from alkd_jax.checks import check_one_of
from alkd_jax.ops import lookup
from alkd_jax.ops.packed_rows import draw_table
from alkd_jax.ops.products import add_to_items, linear, project_items, weighted_sum


def small_normal_table(key: jax.Array, shape: tuple[int, int]) -> Any:
    """Initial values ``N(0, 0.002²)`` for the items; 0 in the padding row."""
    return draw_table(lambda key, shape: 0.002 * jax.random.normal(key, shape), key, shape)


class STAMP(nn.Module):
    """Attention over the session's items, with its mean and its last item as the query.

    ``m_s = mean of x_i``, ``m_t = x_last``, ``e_i = w₀ᵀ σ(W₁ x_i + W₂ m_t + W₃ m_s + b)`` (no softmax),
    ``u = Σ e_i x_i + m_s``, ``score(s, v) = u · Y_v``. Parameters: ``2 (V + 1) D + 3 D² + 2 D``.

    The original form continues: ``h_s = tanh(A u + a)``, ``h_t = tanh(C m_t + c)``, ``score(s, v) = (h_s ∘ h_t) · x_v``
    with the input table. Parameters: ``(V + 1) D + 5 D² + 4 D``.

    Attributes:
        num_items: items are ``1..num_items``.
        dim: width D.
        variant: "alkdrec" or "original".
        sum_padding: whether the sum in the mean includes the input table's row 0 for each position without an item, as
            in the authors' code, whose padding row is not zero.

    Reference:
        Liu et al., STAMP, KDD 2018; Du et al., ALKDRec, AAAI 2025.
    """

    num_items: int
    dim: int
    variant: str = "alkdrec"
    sum_padding: bool = False

    def setup(self) -> None:
        """Declares the item tables and the attention."""
        check_one_of("variant", self.variant, ("alkdrec", "original"))
        table, square = (self.num_items + 1, self.dim), (self.dim, self.dim)
        matrix = nn.initializers.normal(0.05)
        self.input_embedding = self.param("input_embedding", small_normal_table, table)
        self.attention_item_kernel = self.param("attention_item_kernel", matrix, square)
        self.attention_last_kernel = self.param("attention_last_kernel", matrix, square)
        self.attention_mean_kernel = self.param("attention_mean_kernel", matrix, square)
        self.attention_bias = self.param("attention_bias", nn.initializers.zeros, (self.dim,))
        self.attention_out_kernel = self.param("attention_out_kernel", matrix, (self.dim, 1))
        if self.variant == "original":
            self.session_kernel = self.param("session_kernel", matrix, square)
            self.session_bias = self.param("session_bias", nn.initializers.zeros, (self.dim,))
            self.last_kernel = self.param("last_kernel", matrix, square)
            self.last_bias = self.param("last_bias", nn.initializers.zeros, (self.dim,))
        else:
            self.output_embedding = self.param("output_embedding", small_normal_table, table)

    def __call__(
        self, items: Int[Array, "B L"], mask: Bool[Array, "B L"], *, train: bool = False
    ) -> Float[Array, "B D"]:
        """Returns u, or h_s ∘ h_t in the original form; zero for an empty session unless padding is summed.

        No dropout is applied.
        """
        return self.encode_rows(lookup.embedding_lookup(self.input_embedding, items), mask, train=train)

    @property
    def separate_tables(self) -> bool:
        """Whether the input table and the table that scores items are separate parameters."""
        return self.variant == "alkdrec"

    @property
    def reads_padding(self) -> bool:
        """Whether the vectors depend on the input table's row 0."""
        return self.sum_padding

    def encode_rows(
        self, rows: Float[Array, "B L D"], mask: Bool[Array, "B L"], *, train: bool = False
    ) -> Float[Array, "B D"]:
        """Returns u, or h_s ∘ h_t in the original form, from the rows of the input table at the items."""
        return self._encode(jnp.where(mask[..., None], rows, 0.0), rows if self.sum_padding else None, mask)

    def encode_masked_rows(
        self, rows: Float[Array, "B L D"], mask: Bool[Array, "B L"], *, train: bool = False
    ) -> Float[Array, "B D"]:
        """Returns the same from these rows, which are 0 where there is no item; without ``sum_padding``.

        Steps on accelerators call it: it has sums where :meth:`encode_rows` has products that are fast on a CPU, since
        sums are computed together and a product is a kernel of its own.
        """
        length = mask.sum(1, keepdims=True)
        mean = rows.sum(1) / jnp.maximum(length, 1)
        # A sum of products with 0 and 1, whose gradient is no scatter.
        is_last = jnp.arange(mask.shape[1])[None] == length - 1
        last = jnp.where(is_last[..., None], rows, 0.0).sum(1)
        kernel = jnp.concatenate([self.attention_last_kernel, self.attention_mean_kernel])
        query = jnp.concatenate([last, mean], axis=1) @ kernel + self.attention_bias[None]
        hidden = linear(rows, self.attention_item_kernel) + query[:, None]
        energy = (jax.nn.sigmoid(hidden) * self.attention_out_kernel[None, None, :, 0]).sum(2)
        return self._form((jnp.where(mask, energy, 0.0)[..., None] * rows).sum(1) + mean, last)

    def _encode(
        self, x: Float[Array, "B L D"], unmasked: Float[Array, "B L D"] | None, mask: Bool[Array, "B L"]
    ) -> Float[Array, "B D"]:
        length = mask.sum(1, keepdims=True)
        rows_in_mean = x if unmasked is None else unmasked
        mean = weighted_sum(jnp.ones_like(mask, x.dtype), rows_in_mean) / jnp.maximum(length, 1)
        last = jnp.take_along_axis(rows_in_mean, jnp.maximum(length - 1, 0)[..., None], axis=1)[:, 0]
        query = last @ self.attention_last_kernel + mean @ self.attention_mean_kernel + self.attention_bias[None]
        hidden = add_to_items(project_items(x, self.attention_item_kernel), query)
        energy = project_items(jax.nn.sigmoid(hidden), self.attention_out_kernel)[..., 0]
        return self._form(weighted_sum(jnp.where(mask, energy, 0.0), x) + mean, last)

    def _form(self, vector: Float[Array, "B D"], last: Float[Array, "B D"]) -> Float[Array, "B D"]:
        """Returns u itself, or h_s ∘ h_t in the original form."""
        if self.variant == "original":
            long_term = jnp.tanh(vector @ self.session_kernel + self.session_bias[None])
            short_term = jnp.tanh(last @ self.last_kernel + self.last_bias[None])
            vector = long_term * short_term
        return vector

    def item_embeddings(self) -> Float[Array, "V D"]:
        """Returns the table that scores items: Y, or the input table in the original form; row 0 is padding."""
        return self.input_embedding if self.variant == "original" else self.output_embedding
