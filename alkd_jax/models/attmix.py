"""AttMix (Atten-Mixer): several levels of user intent read the session together, as released with ALKDRec."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from alkd_jax.models.encoder import zero_padding_row
from alkd_jax.ops import lookup

_LAYER_NORM_EPSILON = 1e-8
_LEVELS_A_PRODUCT = 2


def l2_normalise(x: Float[Array, "*batch D"], *, axis: int = -1) -> Float[Array, "*batch D"]:
    """``x / max(‖x‖, 1e-12)``, with a gradient of 0 at 0."""
    square = (x * x).sum(axis, keepdims=True)
    norm = jnp.sqrt(jnp.where(square > 0, square, 1.0))
    return x / jnp.where(square > 0, jnp.maximum(norm, 1e-12), 1e-12)


class AttMix(nn.Module):
    """Queries of growing reach over the session's end, attention of several heads, mixed over levels.

    Level i's query is a linear map of the last i items. Two oddities of the released code are kept, since its numbers
    depend on them: queries are normalised over levels, and queries and keys are cut into heads by a plain reshape. With
    x the l2-normalised items, q₀ = W_q q + b, q₁ = W_k x + b, q₂ = W_v x + b:
    ``α = softmax_L 2 Σ_levels softmax_L 2 σ(q₀ q₁ᵀ)``, ``a = LayerNorm(Σ_i α_i q₂_i)``,
    ``u = l2norm(W_m [a, x_last] + b)``, ``score(s, v) = u · Y_v``.

    Parameters: ``2 (V + 1) D + (K (K + 1) / 2 + 5) D² + (K + 6) D``.

    Attributes:
        num_items: items are ``1..num_items``.
        dim: width D, a multiple of ``heads``.
        levels: K, and the number of last items that are looked at.
        heads: H.
        dropout: rate in training, on the session's items and on the attention.

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

    def setup(self) -> None:
        """Declares the item tables, the levels, and the attention; everything starts uniform in ±1/√D."""
        if self.dim % self.heads:
            raise ValueError(f"dim is {self.dim}; expected a multiple of {self.heads} heads")
        shape = (self.num_items + 1, self.dim)
        self.input_embedding = self.param("input_embedding", self.table, shape)
        self.output_embedding = self.param("output_embedding", self.table, shape)
        shapes = self.small_shapes()
        drawn = self.drawn_together(shapes) if self.is_initializing() else {}

        def own(name: str) -> Array:
            return self.param(name, (lambda _, shape: drawn[name]) if drawn else self.uniform, shapes[name])

        def linear(name: str) -> tuple[Array, Array]:
            return own(f"{name}_kernel"), own(f"{name}_bias")

        self.level_maps = [linear(f"level_{i}") for i in range(1, self.levels + 1)]
        self.level_query, self.item_key = linear("level_query"), linear("item_key")
        self.item_value, self.merge = linear("item_value"), linear("merge")
        self.layer_norm_scale, self.layer_norm_bias = own("layer_norm_scale"), own("layer_norm_bias")

    def small_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of all parameters but the tables, in the order in which they are drawn."""

        def linear(name: str, inputs: int) -> dict[str, tuple[int, ...]]:
            return {f"{name}_kernel": (inputs * self.dim, self.dim), f"{name}_bias": (self.dim,)}

        shapes = {name: shape for i in range(1, self.levels + 1) for name, shape in linear(f"level_{i}", i).items()}
        shapes |= linear("level_query", 1) | linear("item_key", 1) | linear("item_value", 1)
        return shapes | {"layer_norm_scale": (self.dim,), "layer_norm_bias": (self.dim,)} | linear("merge", 2)

    def uniform(self, key: jax.Array, shape: tuple[int, ...]) -> Array:
        """Uniform in ±1/√D."""
        bound = self.dim**-0.5
        return jax.random.uniform(key, shape, minval=-bound, maxval=bound)

    def table(self, key: jax.Array, shape: tuple[int, int]) -> Array:
        """The same, 0 in the padding row."""
        return zero_padding_row(self.uniform(key, shape))

    def drawn_together(self, shapes: dict[str, tuple[int, ...]]) -> dict[str, Array]:
        """Initial values, one after the other in a loop: each the start of a draw as long as the longest.

        These are the numbers a draw of its own would give, but XLA takes seconds to compile that of a small shape.
        """
        sizes = {name: math.prod(shape) for name, shape in shapes.items()}
        keys = jnp.stack([self.make_rng("params") for _ in shapes])
        rows = jax.lax.map(lambda key: self.uniform(key, (max(sizes.values()),)), keys)
        return {name: rows[n, : sizes[name]].reshape(shape) for n, (name, shape) in enumerate(shapes.items())}

    def __call__(
        self, items: Int[Array, "B L"], mask: Bool[Array, "B L"], *, train: bool = False
    ) -> Float[Array, "B D"]:
        """Returns u, of length 1. With ``train``, dropout draws from the random stream "dropout"."""
        return self.read(lookup.embedding_lookup(self.input_embedding, items), mask, train=train)

    def read(
        self, rows: Float[Array, "B L D"], mask: Bool[Array, "B L"], *, train: bool = False
    ) -> Float[Array, "B D"]:
        """The same from the items' rows of the input table."""
        x = l2_normalise(jnp.where(mask[..., None], rows, 0.0))
        x = self.drop(x) if train and self.dropout else x
        recent = most_recent_first(x, mask, self.levels)
        queries = affine(self.level_queries(recent), self.level_query)
        keys, values = affine(x, self.item_key), affine(x, self.item_value)

        weights = self.level_weights(queries, keys)
        weights = jnp.where(mask[:, None], 2.0 * weights, -jnp.inf)
        # A session without items has nothing to attend to: weights of 0, not NaN.
        weights = jnp.where(mask.any(1)[:, None, None], jax.nn.softmax(weights, where=mask[:, None]), 0.0)
        weights = self.drop(weights) if train and self.dropout else weights

        batch, length, dim = values.shape
        split = values.reshape(batch, length, self.heads, dim // self.heads)
        attended = jnp.einsum("bhl,blhd->bhd", weights, split).reshape(batch, dim)
        normal = (attended - attended.mean(-1, keepdims=True)) * jax.lax.rsqrt(
            attended.var(-1, keepdims=True) + _LAYER_NORM_EPSILON
        )
        attended = normal * self.layer_norm_scale[None] + self.layer_norm_bias[None]
        return l2_normalise(affine(jnp.concatenate([attended, recent[:, 0]], axis=-1), self.merge))

    def drop(self, x: Float[Array, "*batch D"]) -> Float[Array, "*batch D"]:
        """Sets entries to 0 at the dropout rate, to one part in 65,536, and scales the others up.

        Two entries share a random word: at width 100, drawing words costs as much as a product.
        """
        half = -(-x.shape[-1] // 2)
        words = jax.random.bits(self.make_rng("dropout"), (*x.shape[:-1], half), jnp.uint32)
        parts = jnp.concatenate([words & 0xFFFF, words >> 16], axis=-1)[..., : x.shape[-1]]
        return jnp.where(parts >= round(self.dropout * 2**16), x / (1.0 - self.dropout), 0.0)

    def level_queries(self, recent: Float[Array, "B K D"]) -> Float[Array, "B K D"]:
        """Maps the last i items for every level i, and normalises over levels.

        The kernels of neighbouring levels stand side by side in one block matrix: fewer products than levels, and
        little work on the zeros below the shorter kernels.
        """
        batch, levels, dim = recent.shape
        flat = recent.reshape(batch, levels * dim)
        products = []
        for first in range(0, levels, _LEVELS_A_PRODUCT):
            kernels = [kernel for kernel, _ in self.level_maps[first : first + _LEVELS_A_PRODUCT]]
            height = kernels[-1].shape[0]
            block = jnp.concatenate([jnp.pad(k, ((0, height - k.shape[0]), (0, 0))) for k in kernels], axis=1)
            products.append((flat[:, :height] @ block).reshape(batch, len(kernels), dim))
        queries = jnp.concatenate(products, axis=1) + jnp.stack([bias for _, bias in self.level_maps])[None]
        return l2_normalise(queries, axis=1)

    def level_weights(self, queries: Float[Array, "B K D"], keys: Float[Array, "B L D"]) -> Float[Array, "B H L"]:
        """How much all levels together look at each position: ``Σ_levels softmax_L 2 σ(q₀ q₁ᵀ)``."""
        batch, levels, dim = queries.shape
        length, part = keys.shape[1], dim // self.heads
        split = (x.reshape(batch * self.heads, -1, part) for x in (queries, keys))
        energy = products_of_each(*split).reshape(batch, self.heads, levels, length)
        return jax.nn.softmax(2.0 * jax.nn.sigmoid(energy), axis=-1).sum(2)

    def item_embeddings(self) -> Float[Array, "V D"]:
        """Returns the output table Y, not normalised; row 0 is padding."""
        return self.output_embedding


@jax.custom_vjp
def products_of_each(queries: Float[Array, "N K P"], keys: Float[Array, "N L P"]) -> Float[Array, "N K L"]:
    """``Q_n K_nᵀ`` for every n, with a gradient that a CPU takes a quarter of the time over."""
    return jnp.einsum("nkp,nlp->nkl", queries, keys)


def _forward(queries: Array, keys: Array) -> tuple[Array, tuple[Array, Array]]:
    return products_of_each(queries, keys), (queries, keys)


def _backward(read: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array]:
    queries, keys = read
    # Turned round first: small products that contract the first axis of both sides are seven times as slow.
    turned = jax.lax.optimization_barrier(cotangent.transpose(0, 2, 1))
    return jnp.einsum("nkl,nlp->nkp", cotangent, keys), jnp.einsum("nlk,nkp->nlp", turned, queries)


products_of_each.defvjp(_forward, _backward)


def affine(x: Float[Array, "*batch I"], layer: tuple[Array, Array]) -> Float[Array, "*batch D"]:
    """``x W + b``."""
    kernel, bias = layer
    # As one tall matrix: the kernel's gradient contracts rows, which over two axes takes twice the time on a CPU.
    flat = x.reshape(-1, x.shape[-1]) @ kernel + bias[None]
    return flat.reshape(*x.shape[:-1], kernel.shape[1])


def most_recent_first(x: Float[Array, "B L D"], mask: Bool[Array, "B L"], num: int) -> Float[Array, "B K D"]:
    """Returns the last ``num`` items, the latest first; zeros where the session is shorter."""
    position = mask.sum(1, keepdims=True) - 1 - jnp.arange(num)[None]
    picked = jnp.take_along_axis(x, jnp.maximum(position, 0)[..., None], axis=1)
    return jnp.where((position >= 0)[..., None], picked, 0.0)
