"""The protocol of backbones: they encode sessions and return the item table that scores session vectors."""

import functools
import inspect
from typing import Any, Protocol, TypeAlias, runtime_checkable

import flax.errors
import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from alkd_jax.checks import check_finite
from alkd_jax.ops.dropout import dropout
from alkd_jax.ops.tiles import map_rows
from alkd_jax.types import IntArray

Params: TypeAlias = Any
"""A Linen variable tree, ``{"params": {...}}``; with a leading seed axis where a function says so."""


@runtime_checkable
class Encoder(Protocol):
    """A session encoder: the score of item v for session s is ``u_s · Y_v``, or ``log Σ_l exp(u_sl · Y_v)`` where a
    session has several vectors.

    Backbones are Linen modules with the fields below. ``apply(params, items, mask)`` returns u and
    ``apply(params, method="item_embeddings")`` returns Y.
    """

    num_items: int
    dim: int

    def __hash__(self) -> int:
        """Equal modules have equal hashes, so that they share one compilation."""
        ...

    def init(self, key: Any, items: Int[Array, "B L"], mask: Bool[Array, "B L"]) -> Params:
        """Returns initial parameters; row 0 of the item tables is zero."""
        ...

    def apply(self, params: Params, *args: Any, **kwargs: Any) -> Any:
        """Calls the module, or the method named by ``method``, with these parameters."""
        ...

    def __call__(
        self, items: Int[Array, "B L"], mask: Bool[Array, "B L"], *, train: bool = False
    ) -> Float[Array, "B *L D"]:
        """Encodes sessions; ``train`` enables dropout if the backbone has it."""
        ...

    def item_embeddings(self) -> Float[Array, "V D"]:
        """Returns the output table Y, ``num_items + 1`` rows; row 0 is padding.

        A backbone whose table has dropout in training takes a keyword ``train``, False by default.
        """
        ...


@runtime_checkable
class CausalEncoder(Encoder, Protocol):
    """An encoder whose vector after each position depends on no later item, so that one pass gives all of them."""

    def encode_positions(
        self, items: Int[Array, "B L"], mask: Bool[Array, "B L"], *, train: bool = False
    ) -> Float[Array, "B L D"]:
        """Returns the vector after each position; where there is no item, it has no meaning and is finite."""
        ...


def at_last_item(vectors: Float[Array, "B L D"], mask: Bool[Array, "B L"]) -> Float[Array, "B D"]:
    """Returns the vector at each session's last item, wherever the padding is; 0 for a session without items."""
    last = mask.shape[1] - 1 - jnp.argmax(mask[:, ::-1], axis=1)
    picked = jnp.take_along_axis(vectors, last[:, None, None], axis=1)[:, 0]
    return jnp.where(mask.any(1)[:, None], picked, 0.0)


def reads_times(model: Encoder) -> bool:
    """Whether a backbone takes the times of items after items and mask: it has a true attribute ``reads_times``."""
    return bool(getattr(model, "reads_times", False))


def times_for(model: Encoder, seconds: IntArray | None) -> tuple[Any, ...]:
    """Returns what a backbone takes after items and mask: times where it reads them, otherwise nothing.

    Args:
        model: a backbone.
        seconds: ``[B, L]`` time of each item, if known.

    Raises:
        ValueError: the backbone reads times, and these are not known.
    """
    if not reads_times(model):
        return ()
    if seconds is None:
        raise ValueError(f"{type(model).__name__} reads times; expected sessions with times")
    return (seconds,)


def vector_width(model: Encoder) -> int:
    """Returns the width of the vectors that are scored with each other, which a bias makes larger than ``dim``."""
    params = jax.eval_shape(lambda: init_params(jax.random.key(0), model))
    return int(jax.eval_shape(functools.partial(model.apply, method="item_embeddings"), params).shape[1])


def drops_item_embeddings(model: Encoder) -> bool:
    """Whether a backbone's output table has dropout in training."""
    return "train" in inspect.signature(type(model).item_embeddings).parameters


def drop(module: nn.Module, x: Float[Array, "..."], rate: float) -> Float[Array, "..."]:
    """Returns x after dropout by a module's random stream "dropout"."""
    return dropout(module.make_rng("dropout"), x, rate) if rate else x


def zero_padding_row(table: Float[Array, "V D"]) -> Float[Array, "V D"]:
    """Returns the table with row 0, the padding row, set to zero."""
    return table.at[0].set(0.0)


def init_params(key: jax.Array, model: Encoder, *, length: int = 10) -> Params:
    """Initializes a backbone without data.

    Args:
        key: a JAX key; the function consumes it.
        model: a backbone.
        length: L, the number of positions the backbone reads; at most its ``max_length``, where it has one.
    """
    items = jnp.ones((1, min(length, getattr(model, "max_length", None) or length)), jnp.int32)
    return model.init(key, items, items > 0)


def check_encoder(model: Encoder) -> None:
    """Refuses a module whose arrays have other shapes than those of an :class:`Encoder`; nothing is computed.

    Args:
        model: a backbone, such as one of your own.

    Raises:
        ValueError: the item table or the vectors of sessions have another shape, or a method fails, for instance since
            it needs parameters that the module does not declare in ``setup``.
    """
    name, length = type(model).__name__, min(10, getattr(model, "max_length", None) or 10)
    items = jax.ShapeDtypeStruct((2, length), jnp.int32)
    inputs = (items, jax.ShapeDtypeStruct((2, length), jnp.bool_), *([items] if reads_times(model) else []))
    try:
        params = jax.eval_shape(model.init, jax.random.key(0), *inputs)
        table = jax.eval_shape(functools.partial(model.apply, method="item_embeddings"), params)
        vectors = jax.eval_shape(model.apply, params, *inputs)
    except Exception as error:  # Whatever the code of a user raises; its traceback is kept.
        reason = " ".join(str(error).partition(" (https")[0].split())
        expected = "methods that read what setup declares"
        raise ValueError(f"{name} fails with {type(error).__name__} ({reason}); expected {expected}") from error
    shapes = {"item_embeddings": getattr(table, "shape", None), "__call__": getattr(vectors, "shape", None)}
    if None in shapes.values():
        other = next(method for method, shape in shapes.items() if shape is None)
        raise ValueError(f"{other} of {name} returns several arrays; expected one")
    if table.ndim != 2 or table.shape[0] != model.num_items + 1:
        expected = f"[{model.num_items + 1}, D], a row for each item after that of the padding item 0"
        raise ValueError(f"item_embeddings of {name} has shape {list(table.shape)}; expected {expected}")
    width = table.shape[1]
    if vectors.ndim not in (2, 3) or (vectors.shape[0], vectors.shape[-1]) != (2, width):
        expected = f"[2, {width}], or [2, K, {width}] with K vectors each, of the width of item_embeddings"
        raise ValueError(f"{name} returns shape {list(vectors.shape)} for two sessions; expected {expected}")


def check_params(model: Encoder, params: Params) -> None:
    """Refuses parameters of another model, and parameters that are not finite, such as those of a diverged training.

    Args:
        model: a backbone.
        params: its parameters, without a seed axis; the values of traced arrays are not checked.

    Raises:
        ValueError: the item table is not the model's, or a number is NaN or infinite; the error names array and row.
    """
    try:
        table = jax.eval_shape(functools.partial(model.apply, method="item_embeddings"), params)
    except flax.errors.FlaxError as error:
        reason = str(error).partition(" (https")[0]
        raise ValueError(f"params are of another model ({reason}); expected parameters of {model}") from error
    if table.shape[0] != model.num_items + 1:
        raise ValueError(f"params have {table.shape[0] - 1} items; expected {model.num_items}, as the model")
    check_finite_params(params)


def check_finite_params(params: Params) -> None:
    """Refuses parameters that are not finite; the error names array and row, after the seed where there is one.

    Raises:
        ValueError: a number is NaN or infinite.
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        check_finite("/".join(str(getattr(key, "key", key)) for key in path), leaf)


@functools.partial(jax.jit, static_argnums=0)
def encode(
    model: Encoder,
    params: Params,
    items: Int[Array, "B L"],
    mask: Bool[Array, "B L"],
    seconds: Int[Array, "B L"] | None = None,
) -> Float[Array, "B *L D"]:
    """Encodes sessions without dropout.

    Args:
        model: a backbone.
        params: its parameters, without a seed axis.
        items: ``[B, L]`` items of the sessions, 0 after the last.
        mask: ``[B, L]`` True on real items.
        seconds: ``[B, L]`` time of each item, for a backbone that reads times.

    Returns:
        ``[B, D]``, or ``[B, L, D]`` of a backbone with several vectors per session.

    Raises:
        ValueError: the backbone reads times, and there are none.
    """
    return map_rows(functools.partial(model.apply, params), items, mask, *times_for(model, seconds))
