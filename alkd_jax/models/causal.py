"""Causal encoders: blocks that read a session in one pass, where the vector of a position depends on no later item."""

import abc
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from alkd_jax.checks import check_count
from alkd_jax.models.encoder import at_last_item, drop
from alkd_jax.ops import lookup
from alkd_jax.ops.packed_rows import draw_table

Shapes: TypeAlias = dict[str, tuple[Callable[..., Any], tuple[int, ...]]]
"""Name of a parameter → its initializer and its shape."""
BlockParams: TypeAlias = Mapping[str, Array]
"""Name of a parameter of one block → its values."""


class Pairs(NamedTuple):
    """What a block knows of pairs of positions.

    Attributes:
        visible: position l may read position m where ``visible[b, l, m]``.
        bucket: ``[B, L, L]`` number of the bucket of the time between them, in a backbone that reads times.
    """

    visible: Bool[Array, "B L M"]
    bucket: Int[Array, "B L M"] | None = None


MATRIX = nn.initializers.xavier_normal()
"""Initial values of matrices."""


def normal_table(stddev: float) -> Callable[..., Any]:
    """Returns an initializer of item tables, N(0, stddev²); 0 in the padding row."""

    def init(key: jax.Array, shape: tuple[int, int]) -> Any:
        return draw_table(lambda key, shape: stddev * jax.random.normal(key, shape), key, shape)

    return init


class CausalBlocks(nn.Module):
    """The item table, the positions, and the loop over blocks of a causal encoder; subclasses define the block.

    ``h⁰ₗ = dropout(c X_{sₗ} + Pₗ)``, ``hⁱ = block(hⁱ⁻¹)``, ``uₗ = output(hᴺₗ)``, ``score(s, v) = u_last · Y_v``. The
    position l counts the session's items from its first one, so that it does not matter on which side padding is.

    Attributes:
        num_items: items are ``1..num_items``.
        dim: width D, a multiple of ``heads``.
        max_length: the largest number of positions.
        blocks: N, the number of blocks.
        heads: H, the number of attention heads.
        dropout: dropout rate in training.
        scaled: whether items are multiplied by c = √D before the positions are added; otherwise c = 1.
        separate: whether the table Y that scores items is another one than the input table X.
        item_dropout: dropout rate in training of the session's item vectors, and of the vectors Y that score items.
    """

    num_items: int
    dim: int
    max_length: int = 50
    blocks: int = 2
    heads: int = 1
    dropout: float = 0.2
    scaled: bool = True
    separate: bool = False
    item_dropout: float = 0.0

    def setup(self) -> None:
        """Declares the tables and the parameters of all blocks."""
        check_count(1, max_length=self.max_length, blocks=self.blocks, heads=self.heads)
        if self.dim % self.heads:
            raise ValueError(f"dim is {self.dim}; expected a multiple of {self.heads} heads")
        for name, rate in (("dropout", self.dropout), ("item_dropout", self.item_dropout)):
            if not 0 <= rate < 1:
                raise ValueError(f"{name} is {rate}; expected at least 0 and below 1")
        table = (self.num_items + 1, self.dim)
        self.input_embedding = self.param("input_embedding", normal_table(0.02), table)
        if self.separate:
            self.output_embedding = self.param("output_embedding", normal_table(0.02), table)
        position_init = nn.initializers.normal(self.position_stddev)
        self.positions = self.param("positions", position_init, (self.max_length, self.dim))
        self.block_params = [
            {name: self.param(f"block_{number}_{name}", *spec) for name, spec in self.block_shapes().items()}
            for number in range(1, self.blocks + 1)
        ]
        self.output_params = {name: self.param(f"output_{name}", *spec) for name, spec in self.output_shapes().items()}

    @property
    def position_stddev(self) -> float:
        """Standard deviation of the initial position vectors."""
        return 0.02

    @abc.abstractmethod
    def block_shapes(self) -> Shapes:
        """Returns the parameters of a block."""

    @abc.abstractmethod
    def block(
        self, params: BlockParams, x: Float[Array, "B L D"], pairs: Pairs, *, train: bool
    ) -> Float[Array, "B L D"]:
        """Computes a block."""

    def output_shapes(self) -> Shapes:
        """Returns the parameters of the output."""
        return {}

    def output(self, x: Float[Array, "B L D"]) -> Float[Array, "B L D"]:
        """Computes the vectors from the last block's."""
        return x

    def time_buckets(self, seconds: Int[Array, "B L"] | None) -> Int[Array, "B L M"] | None:
        """Returns the buckets of the times between positions; None in a backbone that reads no times."""
        return None

    def __call__(
        self,
        items: Int[Array, "B L"],
        mask: Bool[Array, "B L"],
        seconds: Int[Array, "B L"] | None = None,
        *,
        train: bool = False,
    ) -> Float[Array, "B D"]:
        """Returns u, the vector after the last item; zero for an empty session."""
        return at_last_item(self.encode_positions(items, mask, seconds, train=train), mask)

    def encode_positions(
        self,
        items: Int[Array, "B L"],
        mask: Bool[Array, "B L"],
        seconds: Int[Array, "B L"] | None = None,
        *,
        train: bool = False,
    ) -> Float[Array, "B L D"]:
        """Returns the vector after each position. With ``train``, dropout uses the random stream "dropout".

        Raises:
            ValueError: there are more positions than ``max_length``, or no times where the backbone reads them.
        """
        if items.shape[1] > self.max_length:
            raise ValueError(f"sessions have {items.shape[1]} positions; expected at most max_length {self.max_length}")
        rows = lookup.embedding_lookup(self.input_embedding, items)
        rows = drop(self, rows, self.item_dropout) if train else rows
        position = jnp.maximum(jnp.cumsum(mask, axis=1) - 1, 0)
        x = rows * self.dim**0.5 if self.scaled else rows
        x = self.drop(x + self.positions[position], train)
        pairs = Pairs(visible_positions(mask), self.time_buckets(seconds))
        for params in self.block_params:
            x = self.block(params, jnp.where(mask[..., None], x, 0.0), pairs, train=train)
        return self.output(jnp.where(mask[..., None], x, 0.0))

    def drop(self, x: Float[Array, "..."], train: bool) -> Float[Array, "..."]:
        """Dropout at the backbone's rate in training."""
        return drop(self, x, self.dropout) if train else x

    def item_embeddings(self, *, train: bool = False) -> Float[Array, "V D"]:
        """Returns the table that scores items, with ``train`` after dropout; row 0 is padding."""
        table = self.output_embedding if self.separate else self.input_embedding
        return drop(self, table, self.item_dropout) if train else table


def visible_positions(mask: Bool[Array, "B L"]) -> Bool[Array, "B L M"]:
    """Which positions each position may read: items up to its own, and its own, so that none reads nothing."""
    return known_positions(mask) | jnp.eye(mask.shape[1], dtype=bool)[None]


def known_positions(mask: Bool[Array, "B L"]) -> Bool[Array, "B L M"]:
    """Which positions hold the items up to each position."""
    return jnp.tril(jnp.ones((mask.shape[1],) * 2, bool))[None] & mask[:, None]
