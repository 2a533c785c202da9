"""CORE: session vectors that are weighted means of item vectors, in the same space as the items."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from alkd_jax.checks import check_count, check_one_of
from alkd_jax.models.attention import scaled_norm, softmax_attention
from alkd_jax.models.attmix import l2_normalize
from alkd_jax.models.causal import known_positions, visible_positions
from alkd_jax.models.encoder import drop
from alkd_jax.models.initial_values import uniform_table
from alkd_jax.ops import lookup
from alkd_jax.ops.products import linear_of_stored

VARIANTS = ("trm", "ave")
LAYER_NORM_EPSILON = 1e-12
_MASKED_ENERGY = -1e9


class CORE(nn.Module):
    """Consistent representation space: a session is a convex combination of its items' vectors.

    ``x = dropout(E[items])``, ``u = l2norm(Σ_i α_i x_i) / τ``, ``score(s, v) = u · l2norm(E_v)``. In the variant "ave"
    all α are equal. In "trm", ``α = softmax_i(w · h_i + b)`` with h the output of a causal post-norm transformer of
    ``x + P``. The position of an item counts from the session's first one, so the side of the padding does not matter.

    Parameters of "ave": ``(V + 1) D``; of "trm" also ``L D + 3 D + 1 + N (4 D² + 2 D F + 9 D + F)``, with N layers,
    inner width F and L = ``max_length``.

    Attributes:
        num_items: items are ``1..num_items``.
        dim: width D, a multiple of ``heads``.
        variant: "trm" or "ave".
        layers: N, of the transformer.
        heads: number of attention heads.
        inner_dim: F, width of the feed-forward layers.
        max_length: the largest number of positions.
        temperature: τ.
        item_dropout: dropout rate in training of the session's item vectors, and of the vectors E that score items.
        dropout: dropout rate of the transformer in training.

    Reference:
        Hou et al., CORE: simple and effective session-based recommendation within consistent representation space,
        SIGIR 2022, eq. 3-8.
    """

    num_items: int
    dim: int
    variant: str = "trm"
    layers: int = 2
    heads: int = 2
    inner_dim: int = 256
    max_length: int = 50
    temperature: float = 0.07
    item_dropout: float = 0.2
    dropout: float = 0.5

    def setup(self) -> None:
        """Declares the item table and the transformer."""
        check_one_of("variant", self.variant, VARIANTS)
        if self.temperature <= 0:
            raise ValueError(f"temperature is {self.temperature}; expected a positive number")
        table = uniform_table(self.dim**-0.5)
        self.input_embedding = self.param("input_embedding", table, (self.num_items + 1, self.dim))
        if self.variant == "ave":
            return
        check_count(1, layers=self.layers, heads=self.heads, inner_dim=self.inner_dim, max_length=self.max_length)
        if self.dim % self.heads:
            raise ValueError(f"dim is {self.dim}; expected a multiple of {self.heads} heads")
        self.position_embedding = self.parameter("position_embedding", self.max_length, self.dim)
        self.input_norm = self.norm("input_norm")
        self.blocks = [self.block_parameters(f"layer_{number}") for number in range(1, self.layers + 1)]
        self.readout = self.affine("readout", self.dim, 1)

    def parameter(self, name: str, *shape: int) -> Any:
        """Declares a matrix, N(0, 0.02²)."""
        return self.param(name, nn.initializers.normal(0.02), shape)

    def affine(self, name: str, inputs: int, outputs: int) -> tuple[Any, Any]:
        """Declares a kernel and a bias."""
        bias = self.param(f"{name}_bias", nn.initializers.zeros, (outputs,))
        return self.parameter(f"{name}_kernel", inputs, outputs), bias

    def norm(self, name: str) -> tuple[Any, Any]:
        """Declares scale and bias of a layer norm."""
        scale = self.param(f"{name}_scale", nn.initializers.ones, (self.dim,))
        return scale, self.param(f"{name}_bias", nn.initializers.zeros, (self.dim,))

    def block_parameters(self, name: str) -> dict[str, tuple[Any, Any]]:
        """Declares the parameters of one layer."""
        dim, inner = self.dim, self.inner_dim
        shapes = {part: (dim, dim) for part in ("query", "key", "value", "attended")}
        shapes |= {"inner": (dim, inner), "outer": (inner, dim)}
        found = {part: self.affine(f"{name}_{part}", *shape) for part, shape in shapes.items()}
        return found | {part: self.norm(f"{name}_{part}") for part in ("attention_norm", "feed_forward_norm")}

    def __call__(
        self, items: Int[Array, "B L"], mask: Bool[Array, "B L"], *, train: bool = False
    ) -> Float[Array, "B D"]:
        """Returns u; zero for an empty session. With ``train``, dropout uses the random stream "dropout"."""
        x = self._items(items, train=train)
        energy = self._energy(x, mask, train=train)
        weight = jax.nn.softmax(jnp.where(mask, energy, _MASKED_ENERGY), axis=1)
        return self._session_vector(jnp.einsum("bl,bld->bd", jnp.where(mask, weight, 0.0), x))

    def encode_positions(
        self, items: Int[Array, "B L"], mask: Bool[Array, "B L"], *, train: bool = False
    ) -> Float[Array, "B L D"]:
        """Returns at each position the u of the session up to it, in one pass: the transformer is causal."""
        x = self._items(items, train=train)
        energy = self._energy(x, mask, train=train)
        is_known = known_positions(mask)
        weight = jax.nn.softmax(jnp.where(is_known, energy[:, None], _MASKED_ENERGY), axis=2)
        return self._session_vector(jnp.einsum("btl,bld->btd", jnp.where(is_known, weight, 0.0), x))

    def item_embeddings(self, *, train: bool = False) -> Float[Array, "V D"]:
        """Returns ``l2norm(E)``, with ``train`` after dropout; row 0 is padding."""
        table = self.input_embedding
        return l2_normalize(drop(self, table, self.item_dropout) if train else table)

    def _items(self, items: Array, *, train: bool) -> Float[Array, "B L D"]:
        x = lookup.embedding_lookup(self.input_embedding, items)
        return drop(self, x, self.item_dropout) if train else x

    def _session_vector(self, mean: Float[Array, "*batch D"]) -> Float[Array, "*batch D"]:
        return l2_normalize(mean) / self.temperature

    def _energy(self, x: Float[Array, "B L D"], mask: Bool[Array, "B L"], *, train: bool) -> Float[Array, "B L"]:
        """Returns the logarithm of α up to a constant, before the softmax over positions."""
        if self.variant == "ave":
            return jnp.zeros(mask.shape, x.dtype)
        if mask.shape[1] > self.max_length:
            raise ValueError(f"sessions have {mask.shape[1]} positions; expected at most max_length {self.max_length}")
        drop_hidden = functools.partial(drop, self, rate=self.dropout if train else 0.0)
        norm = functools.partial(scaled_norm, epsilon=LAYER_NORM_EPSILON)
        position = jnp.maximum(jnp.cumsum(mask, axis=1) - 1, 0)
        h = drop_hidden(norm(x + self.position_embedding[position], *self.input_norm))
        visible = visible_positions(mask)
        for block in self.blocks:
            query, key, value = (linear_of_stored(h, *block[part]) for part in ("query", "key", "value"))
            attended = softmax_attention(query, key, value, visible, self.heads, drop_hidden)
            h = norm(h + drop_hidden(linear_of_stored(attended, *block["attended"])), *block["attention_norm"])
            inner = jax.nn.gelu(linear_of_stored(h, *block["inner"]), approximate=False)
            h = norm(h + drop_hidden(linear_of_stored(inner, *block["outer"])), *block["feed_forward_norm"])
        return linear_of_stored(h, *self.readout)[..., 0]
