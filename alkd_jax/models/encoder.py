"""The protocol every backbone keeps: encode sessions, and give the table that scores items."""

from typing import Any, Protocol, TypeAlias, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from alkd_jax import sharding

Params: TypeAlias = Any
"""A Linen variable tree, ``{"params": {...}}``; with a leading seed axis where a function says so."""

_CPU_TILE = 128
"""Sessions whose hidden layers stay in a CPU's cache."""


@runtime_checkable
class Encoder(Protocol):
    """A session encoder: the score of item v for session s is ``u_s · Y_v``, or ``log Σ_l exp(u_sl · Y_v)`` where a
    session has several vectors.

    Backbones are Linen modules with the fields below. ``apply(params, items, mask)`` encodes and
    ``apply(params, method="item_embeddings")`` gives Y.
    """

    num_items: int
    dim: int

    def __hash__(self) -> int:
        """Equal modules hash alike, so one compilation serves them."""
        ...

    def init(self, key: Any, items: Int[Array, "B L"], mask: Bool[Array, "B L"]) -> Params:
        """Returns fresh parameters; rows 0 of the item tables are zero."""
        ...

    def apply(self, params: Params, *args: Any, **kwargs: Any) -> Any:
        """Calls the module, or the method named by ``method``, with these parameters."""
        ...

    def __call__(
        self, items: Int[Array, "B L"], mask: Bool[Array, "B L"], *, train: bool = False
    ) -> Float[Array, "B *L D"]:
        """Encodes sessions; ``train`` turns dropout on where the backbone has any."""
        ...

    def item_embeddings(self) -> Float[Array, "V D"]:
        """Returns the output table Y, ``num_items + 1`` rows; row 0 is padding."""
        ...


def zero_padding_row(table: Float[Array, "V D"]) -> Float[Array, "V D"]:
    """Returns the table with row 0, the padding, set to zero."""
    return table.at[0].set(0.0)


def init_params(key: jax.Array, model: Encoder, *, length: int = 10) -> Params:
    """Initialises a backbone without needing data at hand.

    Args:
        key: consumed.
        model: a backbone.
        length: L, the number of positions the backbone reads.
    """
    items = jnp.ones((1, length), jnp.int32)
    return model.init(key, items, items > 0)


def encode(
    model: Encoder, params: Params, items: Int[Array, "B L"], mask: Bool[Array, "B L"]
) -> Float[Array, "B *L D"]:
    """Encodes sessions without dropout, on a CPU few at a time, so that what lies between layers stays in its cache.

    Args:
        model: a backbone.
        params: its parameters, without a seed axis.
        items: of the sessions, 0 in free positions.
        mask: which positions hold an item.
    """
    batch = items.shape[0]
    if batch <= _CPU_TILE or jax.default_backend() != "cpu" or sharding.current_mesh() is not None:
        return model.apply(params, items, mask)
    num_tiles = -(-batch // _CPU_TILE)
    size = -(-batch // num_tiles)

    def tiles(array: Array) -> Array:
        return jnp.pad(array, ((0, num_tiles * size - batch), (0, 0))).reshape(num_tiles, size, -1)

    vectors = jax.lax.map(lambda tile: model.apply(params, *tile), (tiles(items), tiles(mask)))
    return vectors.reshape(-1, *vectors.shape[2:])[:batch]
