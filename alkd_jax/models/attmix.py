"""AttMix (Atten-Mixer): attention from several levels of user intent, in the form that ALKDRec's authors released."""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from alkd_jax.ops import lookup
from alkd_jax.ops.dropout import dropout
from alkd_jax.ops.packed_rows import draw_table
from alkd_jax.ops.products import batched_product, linear, prefix_products

_LAYER_NORM_EPSILON = 1e-8


def l2_normalize(x: Float[Array, "*batch D"], *, axis: int = -1) -> Float[Array, "*batch D"]:
    """``x / max(‖x‖, 1e-12)``, with a gradient of 0 at 0."""
    square = (x * x).sum(axis, keepdims=True)
    norm = jnp.sqrt(jnp.where(square > 0, square, 1.0))
    return x / jnp.where(square > 0, jnp.maximum(norm, 1e-12), 1e-12)


class AttMix(nn.Module):
    """Multi-head attention over the session's items, with one query for each level of user intent.

    The query of level i is a linear map of the last i items. Two details of the released code are reproduced, because
    its results depend on them: queries are normalized over levels, and a plain reshape splits queries and keys into
    heads. With x the l2-normalized items, q the normalized queries, q₀ = W_q q + b, q₁ = W_k x + b, q₂ = W_v x + b:
    ``α = softmax_L 2 Σ_levels softmax_L 2 σ(q₀ q₁ᵀ)``, ``a = LayerNorm(Σ_i α_i q₂_i)``,
    ``u = l2norm(W_m [a, x_last] + b)``, ``score(s, v) = u · Y_v``.

    Parameters: ``2 (V + 1) D + (K (K + 1) / 2 + 5) D² + (K + 6) D``.

    Attributes:
        num_items: items are ``1..num_items``.
        dim: width D, a multiple of ``heads``.
        levels: K, the number of levels, and of the most recent items that queries are made of.
        heads: H.
        dropout: dropout rate in training, for the session's items and the attention weights.

    Reference:
        Zhang et al., Efficiently leveraging multi-level user intent for session-based recommendation, WSDM 2023;
        Du et al., ALKDRec, AAAI 2025.
    """

    num_items: int
    dim: int
    levels: int = 10
    heads: int = 2
    dropout: float = 0.1
    separate_tables = True
    reads_padding = False

    def setup(self) -> None:
        """Declares the item tables, the levels, and the attention; initial values are uniform in ±1/√D."""
        if self.dim % self.heads:
            raise ValueError(f"dim is {self.dim}; expected a multiple of {self.heads} heads")
        shape = (self.num_items + 1, self.dim)
        self.input_embedding = self.param("input_embedding", self.item_table, shape)
        self.output_embedding = self.param("output_embedding", self.item_table, shape)
        shapes = self.layer_shapes()
        initial = self.initial_layers(shapes) if self.is_initializing() else {}

        def parameter(name: str) -> Array:
            return self.param(name, (lambda _, shape: initial[name]) if initial else self.uniform, shapes[name])

        def layer(name: str) -> tuple[Array, Array]:
            return parameter(f"{name}_kernel"), parameter(f"{name}_bias")

        self.level_maps = [layer(f"level_{i}") for i in range(1, self.levels + 1)]
        self.level_query, self.item_key = layer("level_query"), layer("item_key")
        self.item_value, self.merge = layer("item_value"), layer("merge")
        self.layer_norm_scale, self.layer_norm_bias = parameter("layer_norm_scale"), parameter("layer_norm_bias")

    def layer_shapes(self) -> dict[str, tuple[int, ...]]:
        """Returns the shapes of all parameters except the tables, in the order of their random keys."""

        def layer(name: str, inputs: int) -> dict[str, tuple[int, ...]]:
            return {f"{name}_kernel": (inputs * self.dim, self.dim), f"{name}_bias": (self.dim,)}

        shapes = {name: shape for i in range(1, self.levels + 1) for name, shape in layer(f"level_{i}", i).items()}
        shapes |= layer("level_query", 1) | layer("item_key", 1) | layer("item_value", 1)
        return shapes | {"layer_norm_scale": (self.dim,), "layer_norm_bias": (self.dim,)} | layer("merge", 2)

    def uniform(self, key: jax.Array, shape: tuple[int, ...]) -> Array:
        """Initial values, uniform in ±1/√D."""
        bound = self.dim**-0.5
        return jax.random.uniform(key, shape, minval=-bound, maxval=bound)

    def item_table(self, key: jax.Array, shape: tuple[int, int]) -> Any:
        """Initial values of an item table, uniform in ±1/√D; 0 in the padding row."""
        return draw_table(self.uniform, key, shape)

    def initial_layers(self, shapes: dict[str, tuple[int, ...]]) -> dict[str, Array]:
        """Initial values of the layers, in one loop over parameters.

        Each parameter takes the first numbers of a draw of the largest size. These equal the numbers of a draw of its
        own size; the loop saves compile time, because XLA takes seconds to compile a draw of each small shape.
        """
        sizes = {name: math.prod(shape) for name, shape in shapes.items()}
        keys = jnp.stack([self.make_rng("params") for _ in shapes])
        rows = jax.lax.map(lambda key: self.uniform(key, (max(sizes.values()),)), keys)
        return {name: rows[n, : sizes[name]].reshape(shape) for n, (name, shape) in enumerate(shapes.items())}

    def __call__(
        self, items: Int[Array, "B L"], mask: Bool[Array, "B L"], *, train: bool = False
    ) -> Float[Array, "B D"]:
        """Returns u, of norm 1. With ``train``, dropout uses the random stream "dropout"."""
        return self.encode_rows(lookup.embedding_lookup(self.input_embedding, items), mask, train=train)

    def encode_rows(
        self, rows: Float[Array, "B L D"], mask: Bool[Array, "B L"], *, train: bool = False
    ) -> Float[Array, "B D"]:
        """Returns u from the rows of the input table at the items."""
        return self.encode_masked_rows(jnp.where(mask[..., None], rows, 0.0), mask, train=train)

    def encode_masked_rows(
        self, rows: Float[Array, "B L D"], mask: Bool[Array, "B L"], *, train: bool = False
    ) -> Float[Array, "B D"]:
        """Returns u from these rows, which are 0 where there is no item."""
        x = l2_normalize(rows)
        x = self.drop(x) if train and self.dropout else x
        recent = most_recent_first(x, mask, self.levels)
        queries = linear(self.level_queries(recent), *self.level_query)
        keys, values = linear(x, *self.item_key), linear(x, *self.item_value)

        weights = self.level_weights(queries, keys)
        weights = jnp.where(mask[:, None], 2.0 * weights, -jnp.inf)
        # In a session without items all attention weights are 0; a plain softmax would return NaN.
        weights = jnp.where(mask.any(1)[:, None, None], jax.nn.softmax(weights, where=mask[:, None]), 0.0)
        weights = self.drop(weights) if train and self.dropout else weights

        batch, length, dim = values.shape
        values = values.reshape(batch, length, self.heads, dim // self.heads)
        attended = jnp.einsum("bhl,blhd->bhd", weights, values).reshape(batch, dim)
        normalized = (attended - attended.mean(-1, keepdims=True)) * jax.lax.rsqrt(
            attended.var(-1, keepdims=True) + _LAYER_NORM_EPSILON
        )
        attended = normalized * self.layer_norm_scale[None] + self.layer_norm_bias[None]
        return l2_normalize(linear(jnp.concatenate([attended, recent[:, 0]], axis=-1), *self.merge))

    def drop(self, x: Float[Array, "*batch D"]) -> Float[Array, "*batch D"]:
        """Dropout at the backbone's rate, with the random stream "dropout"."""
        return dropout(self.make_rng("dropout"), x, self.dropout)

    def level_queries(self, recent: Float[Array, "B K D"]) -> Float[Array, "B K D"]:
        """Applies the linear map of each level i to the last i items, and normalizes over levels."""
        kernels, biases = zip(*self.level_maps, strict=True)
        return l2_normalize(prefix_products(recent, kernels) + jnp.stack(biases)[None], axis=1)

    def level_weights(self, queries: Float[Array, "B K D"], keys: Float[Array, "B L D"]) -> Float[Array, "B H L"]:
        """The attention of all levels to each position: ``Σ_levels softmax_L 2 σ(q₀ q₁ᵀ)``."""
        batch, levels, dim = queries.shape
        length, part = keys.shape[1], dim // self.heads
        queries, keys = (x.reshape(batch * self.heads, -1, part) for x in (queries, keys))
        energy = batched_product(queries, keys).reshape(batch, self.heads, levels, length)
        return jax.nn.softmax(2.0 * jax.nn.sigmoid(energy), axis=-1).sum(2)

    def item_embeddings(self) -> Float[Array, "V D"]:
        """Returns the output table Y, which is not normalized; row 0 is padding."""
        return self.output_embedding


def most_recent_first(x: Float[Array, "B L D"], mask: Bool[Array, "B L"], num: int) -> Float[Array, "B K D"]:
    """Returns the last ``num`` items, the most recent first; zeros where the session is shorter."""
    position = mask.sum(1, keepdims=True) - 1 - jnp.arange(num)[None]
    picked = jnp.take_along_axis(x, jnp.maximum(position, 0)[..., None], axis=1)
    return jnp.where((position >= 0)[..., None], picked, 0.0)
