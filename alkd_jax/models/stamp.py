"""STAMP: short-term attention and memory priority, in ALKDRec's form and in the original's."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from alkd_jax.models.encoder import zero_padding_row
from alkd_jax.ops import lookup

_NARROW = 32
"""Rows of fewer numbers leave a CPU's registers half empty."""


def small_normal_table(key: jax.Array, shape: tuple[int, int]) -> Float[Array, "V D"]:
    """N(0, 0.002²) over the real items, 0 in the padding row."""
    return zero_padding_row(0.002 * jax.random.normal(key, shape))


def weighted_sum(weight: Float[Array, "B L"], x: Float[Array, "B L D"]) -> Float[Array, "B D"]:
    """``Σ_l w_bl x_bl``, as a product: on a CPU a sum over a middle axis takes several times as long."""
    return jnp.einsum("bl,bld->bd", weight, x, precision=jax.lax.Precision.HIGHEST)


def each_times(x: Float[Array, "B L D"], kernel: Float[Array, "D E"]) -> Float[Array, "B L E"]:
    """Every vector times the kernel, narrow ones a few in a row.

    As one tall matrix: the kernel's gradient contracts rows, which over two axes takes twice the time on a CPU.
    """
    (batch, length, dim), width = x.shape, kernel.shape[1]
    together = max(n for n in range(1, length + 1) if n == 1 or (length % n == 0 and n * dim <= _NARROW))
    product = x.reshape(-1, together * dim) @ jnp.kron(jnp.eye(together), kernel)
    return product.reshape(batch, length, width)


def added_to_each(x: Float[Array, "B L D"], own: Float[Array, "B D"]) -> Float[Array, "B L D"]:
    """Every vector of a session plus the session's own."""
    _, length, dim = x.shape
    if dim > _NARROW:
        return x + own[:, None]
    # Repeated by a product: a CPU takes twice as long to copy few numbers at a time.
    copies = jnp.matmul(own, jnp.tile(jnp.eye(dim), length), precision=jax.lax.Precision.HIGHEST)
    return (x.reshape(copies.shape) + copies).reshape(x.shape)


class STAMP(nn.Module):
    """Attention over the session, steered by its mean and its last item.

    ``m_s = mean of x_i``, ``m_t = x_last``, ``e_i = w₀ᵀ σ(W₁ x_i + W₂ m_t + W₃ m_s + b)`` (no softmax),
    ``u = Σ e_i x_i + m_s``, ``score(s, v) = u · Y_v``. Parameters: ``2 (V + 1) D + 3 D² + 2 D``.

    The original goes on: ``h_s = tanh(A u + a)``, ``h_t = tanh(C m_t + c)``, ``score(s, v) = (h_s ∘ h_t) · x_v`` with
    the input table. Parameters: ``(V + 1) D + 5 D² + 4 D``.

    Attributes:
        num_items: items are ``1..num_items``.
        dim: width D.
        variant: "alkdrec" or "original".
        sum_padding: a free position holds the input table's row 0 and adds it to the mean's sum, as in the authors'
            code, whose padding row is not zero.

    Reference:
        Liu et al., STAMP, KDD 2018; Du et al., ALKDRec, AAAI 2025.
    """

    num_items: int
    dim: int
    variant: str = "alkdrec"
    sum_padding: bool = False

    def setup(self) -> None:
        """Declares the item tables and the attention."""
        if self.variant not in ("alkdrec", "original"):
            raise ValueError(f"variant is {self.variant!r}; expected 'alkdrec' or 'original'")
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
        """Returns u, in the original variant h_s ∘ h_t; zero for an empty session. Has no dropout."""
        return self.read(lookup.embedding_lookup(self.input_embedding, items), mask, train=train)

    @property
    def separate_tables(self) -> bool:
        """Whether what is read and what scores are two tables."""
        return self.variant == "alkdrec"

    def read(
        self, rows: Float[Array, "B L D"], mask: Bool[Array, "B L"], *, train: bool = False
    ) -> Float[Array, "B D"]:
        """The same from the items' rows of the input table."""
        x = jnp.where(mask[..., None], rows, 0.0)
        length = mask.sum(1, keepdims=True)
        summed = rows if self.sum_padding else x
        mean = weighted_sum(jnp.ones_like(mask, x.dtype), summed) / jnp.maximum(length, 1)
        last = jnp.take_along_axis(summed, jnp.maximum(length - 1, 0)[..., None], axis=1)[:, 0]
        steering = last @ self.attention_last_kernel + mean @ self.attention_mean_kernel + self.attention_bias[None]
        hidden = added_to_each(each_times(x, self.attention_item_kernel), steering)
        energy = each_times(jax.nn.sigmoid(hidden), self.attention_out_kernel)[..., 0]
        vector = weighted_sum(jnp.where(mask, energy, 0.0), x) + mean
        if self.variant == "original":
            long = jnp.tanh(vector @ self.session_kernel + self.session_bias[None])
            short = jnp.tanh(last @ self.last_kernel + self.last_bias[None])
            vector = long * short
        return vector

    def item_embeddings(self) -> Float[Array, "V D"]:
        """Returns the table that scores items: Y, in the original variant the input table; row 0 is padding."""
        return self.input_embedding if self.variant == "original" else self.output_embedding
