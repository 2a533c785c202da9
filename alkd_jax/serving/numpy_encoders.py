"""Shipped backbones by name: their options, parameters, session vectors and scores, in NumPy and float32."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Int

from alkd_jax.errors import shown
from alkd_jax.serving.backbones import SHIPPED_BACKBONES, Arrays, Options
from alkd_jax.serving.student_checks import check_array_shapes, check_option_types

OPTIONS: Mapping[str, Options] = {name: backbone.options for name, backbone in SHIPPED_BACKBONES.items()}
"""Backbone → options that affect a trained model, with their defaults."""

_MAX_PRODUCTS = 2**22
"""The largest number of products of vectors and items that late interaction holds at a time."""


def check_options(backbone: str, options: Options, *, dim: int) -> None:
    """Checks the name and the options of a backbone.

    Raises:
        ValueError: the backbone is unknown, or an option is unknown, missing or out of range.
    """
    _check_option_names(backbone, options)
    SHIPPED_BACKBONES[backbone].check(options, dim)


def _check_option_names(backbone: str, options: Options) -> None:
    if backbone not in OPTIONS:
        raise ValueError(f"backbone is {shown(backbone)}; expected {' or '.join(map(repr, OPTIONS))}")
    check_option_types(backbone, options, OPTIONS[backbone])


def check_length(backbone: str, options: Options, *, dim: int, length: int) -> None:
    """Refuses a length L with which one answer would take too much memory and time.

    Raises:
        ValueError: the length is below 1, or above what this backbone reads in bounded memory.
    """
    most = SHIPPED_BACKBONES[backbone].max_length(options, dim)
    if not 1 <= length <= most:
        raise ValueError(f"length is {shown(length)}; expected 1..{most} for {backbone} of this size")


def parameter_shapes(backbone: str, options: Options, *, num_items: int, dim: int) -> dict[str, tuple[int, ...]]:
    """Returns parameter name → shape."""
    return SHIPPED_BACKBONES[backbone].shapes(options, num_items, dim)


def width(backbone: str, options: Options, arrays: Arrays) -> int:
    """Returns the width D of a student, 1 where it has no input table.

    Raises:
        ValueError: the backbone is unknown, or an option is unknown or missing.
    """
    _check_option_names(backbone, options)
    table = arrays.get("input_embedding")
    return 1 if table is None else SHIPPED_BACKBONES[backbone].width(options, table.shape[-1])


def check_arrays(
    backbone: str, options: Options, arrays: Mapping[str, np.ndarray], *, num_items: int, dim: int, dtype: str
) -> None:
    """Checks names, types and shapes of a student's parameters, and that all numbers are finite.

    Raises:
        ValueError: an array is not one of this student, or a number is not finite.
    """
    expected = parameter_shapes(backbone, options, num_items=num_items, dim=dim)
    check_array_shapes(arrays, expected, dtype=dtype)
    for name in expected:
        if not np.isfinite(arrays[name]).all():
            raise ValueError(f"{name} has a number that is not finite; expected finite numbers")


def encode(
    backbone: str, options: Options, arrays: Arrays, items: Int[np.ndarray, "B N"], *, length: int
) -> Float[np.ndarray, "..."]:
    """Encodes sessions. Except for AttMix, the work depends on their own items and not on L.

    Args:
        backbone: one of :data:`OPTIONS`.
        options: all options of that backbone.
        arrays: its parameters, float32.
        items: ``[B, N]``, left-aligned, 0 after the last.
        length: L, the number of columns in training. STAMP that sums the padding reads the padding up to it.

    Returns:
        ``[B, D]``, or ``[B, n, D + 2]`` for late interaction (``[B, n, 2 D + 2]`` with shared tables), where n is the
        largest number of items of a session, or 1 if none has an item.
    """
    shipped = SHIPPED_BACKBONES[backbone]
    used = np.flatnonzero((items > 0).any(0))
    columns = length if shipped.reads_all_columns else used[-1] + 1 if len(used) else 1
    items = items[:, :columns]
    if columns > items.shape[1]:
        items = np.pad(items, ((0, 0), (0, columns - items.shape[1])))
    return shipped.encode(options, arrays, items, items > 0, length)


def item_embeddings(backbone: str, options: Options, arrays: Arrays) -> Float[np.ndarray, "V D"]:
    """Returns the table Y that scores items; row 0 is padding."""
    return SHIPPED_BACKBONES[backbone].item_embeddings(options, arrays)


def scores(vectors: Float[np.ndarray, "..."], table: Float[np.ndarray, "V D"]) -> Float[np.ndarray, "B V"]:
    """``u_b · Y_v``, or ``log Σ_l exp(u_bl · Y_v)`` of sessions with several vectors."""
    if vectors.ndim == 2:
        return vectors @ table.T
    chunk = max(1, _MAX_PRODUCTS // (vectors.shape[0] * vectors.shape[1]))
    chunks = [_soft_maximum(vectors @ table[start : start + chunk].T) for start in range(0, len(table), chunk)]
    return np.concatenate(chunks, axis=1)


def _soft_maximum(products: Float[np.ndarray, "B L V"]) -> Float[np.ndarray, "B V"]:
    highest = products.max(1, keepdims=True)
    return np.log(np.exp(products - highest).sum(1)) + highest[:, 0]
