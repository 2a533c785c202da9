"""The forward pass of the backbones in NumPy: formulas and parameter names of `alkd_jax.models`, in float32."""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Int

from alkd_jax.errors import shown

Arrays: TypeAlias = Mapping[str, Float[np.ndarray, "..."]]
Options: TypeAlias = Mapping[str, Any]

OPTIONS: Mapping[str, Options] = {
    "fpmc": {},
    "stamp": {"variant": "alkdrec", "sum_padding": False},
    "attmix": {"levels": 10, "heads": 2},
    "late": {"shared": False, "recency": 1.0},
}
"""Backbone → options that affect a trained model, with their defaults."""

STAMP_VARIANTS = ("alkdrec", "original")
MASKED_SCORE = -1e9
"""Late interaction adds this to the score of a position without an item."""
LAYER_NORM_EPSILON = 1e-8
MIN_NORM = 1e-12

_MAX_LEVELS = 1000
_MAX_LENGTH, _MAX_ATTMIX_NUMBERS = 2**16, 2**20
"""The largest length L, and the most numbers of one session that AttMix holds in an array."""
_MAX_PRODUCTS = 2**22
"""The largest number of products of vectors and items that late interaction holds at a time."""


def check_options(backbone: str, options: Options, *, dim: int) -> None:
    """Checks the name and the options of a backbone.

    Raises:
        ValueError: the backbone is unknown, or an option is unknown, missing or out of range.
    """
    if backbone not in OPTIONS:
        raise ValueError(f"backbone is {shown(backbone)}; expected {' or '.join(map(repr, OPTIONS))}")
    known = OPTIONS[backbone]
    if options.keys() != known.keys():
        raise ValueError(f"options of {backbone} are {shown(sorted(options))}; expected {sorted(known)}")
    for name, default in known.items():
        if type(options[name]) is not type(default):
            raise ValueError(f"{backbone}: {name} is {shown(options[name])}; expected the type of {default!r}")
    if backbone == "stamp" and options["variant"] not in STAMP_VARIANTS:
        raise ValueError(f"stamp: variant is {shown(options['variant'])}; expected {' or '.join(STAMP_VARIANTS)}")
    if backbone == "attmix":
        levels, heads = options["levels"], options["heads"]
        if not 1 <= levels <= _MAX_LEVELS:
            raise ValueError(f"attmix: levels is {shown(levels)}; expected 1..{_MAX_LEVELS}")
        if heads < 1 or dim % heads:
            raise ValueError(f"attmix: heads is {shown(heads)}; expected a divisor of the width {dim}")
    if backbone == "late" and not 0.0 < options["recency"] <= 1.0:
        raise ValueError(f"late: recency is {options['recency']}; expected a number in (0, 1]")


def check_length(backbone: str, options: Options, *, dim: int, length: int) -> None:
    """Refuses a length L with which one answer would take too much memory and time.

    Raises:
        ValueError: the length is below 1, or AttMix would hold too many numbers.
    """
    most = _MAX_LENGTH
    if backbone == "attmix":
        most = min(most, _MAX_ATTMIX_NUMBERS // max(options["levels"] * options["heads"], dim))
    if not 1 <= length <= most:
        raise ValueError(f"length is {shown(length)}; expected 1..{most} for {backbone} of this size")


def parameter_shapes(backbone: str, options: Options, *, num_items: int, dim: int) -> dict[str, tuple[int, ...]]:
    """Returns parameter name → shape."""
    table, square = (num_items + 1, dim), (dim, dim)
    shapes: dict[str, tuple[int, ...]] = {"input_embedding": table, "output_embedding": table}
    if backbone == "stamp":
        shapes |= {f"attention_{part}_kernel": square for part in ("item", "last", "mean")}
        shapes |= {"attention_bias": (dim,), "attention_out_kernel": (dim, 1)}
        if options["variant"] == "original":
            shapes |= {"session_kernel": square, "session_bias": (dim,), "last_kernel": square, "last_bias": (dim,)}
            del shapes["output_embedding"]
    elif backbone == "attmix":
        rows = {f"level_{i}": i * dim for i in range(1, options["levels"] + 1)}
        rows |= {"level_query": dim, "item_key": dim, "item_value": dim, "merge": 2 * dim}
        for name, inputs in rows.items():
            shapes |= {f"{name}_kernel": (inputs, dim), f"{name}_bias": (dim,)}
        shapes |= {"layer_norm_scale": (dim,), "layer_norm_bias": (dim,)}
    elif backbone == "late":
        shapes |= {"input_bias": table[:1], "output_bias": table[:1]}
        shapes |= {"interaction_kernel": (2 * dim, 2 * dim)} if options["shared"] else {}
    return shapes


def check_arrays(
    backbone: str, options: Options, arrays: Mapping[str, np.ndarray], *, num_items: int, dim: int, dtype: str
) -> None:
    """Checks names, types and shapes of a student's parameters, and that all numbers are finite.

    Raises:
        ValueError: an array is not one of this student, or a number is not finite.
    """
    expected = parameter_shapes(backbone, options, num_items=num_items, dim=dim)
    if arrays.keys() != expected.keys():
        raise ValueError(f"arrays are {shown(sorted(arrays), width=300)}; expected {sorted(expected)}")
    for name, shape in expected.items():
        array = arrays[name]
        if array.shape != shape or array.dtype.name != dtype:
            raise ValueError(f"{name} is {array.dtype} {array.shape}; expected {dtype} {shape}")
        if not np.isfinite(array).all():
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
    used = np.flatnonzero((items > 0).any(0))
    # AttMix normalizes over the padding too, and splits all L columns into heads.
    columns = length if backbone == "attmix" else used[-1] + 1 if len(used) else 1
    items = items[:, :columns]
    if columns > items.shape[1]:
        items = np.pad(items, ((0, 0), (0, columns - items.shape[1])))
    return _ENCODERS[backbone](options, arrays, items, items > 0, length)


def item_embeddings(backbone: str, options: Options, arrays: Arrays) -> Float[np.ndarray, "V D"]:
    """Returns the table Y that scores items; row 0 is padding."""
    if backbone == "late":
        bias = arrays["output_bias"][:, None]
        return np.concatenate([_late_table(options, arrays), np.ones_like(bias), bias], axis=1)
    return arrays["input_embedding" if options.get("variant") == "original" else "output_embedding"]


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


def _fpmc(
    options: Options, arrays: Arrays, items: Int[np.ndarray, "B L"], mask: Bool[np.ndarray, "B L"], length: int
) -> Float[np.ndarray, "B D"]:
    x = arrays["input_embedding"][items] * mask[..., None]
    return x.sum(1) / _num_items(mask)


def _stamp(
    options: Options, arrays: Arrays, items: Int[np.ndarray, "B L"], mask: Bool[np.ndarray, "B L"], length: int
) -> Float[np.ndarray, "B D"]:
    embeddings = arrays["input_embedding"][items]
    x = embeddings * mask[..., None]
    summed = embeddings if options["sum_padding"] else x
    total = summed.sum(1)
    if options["sum_padding"]:
        total += np.float32(length - items.shape[1]) * arrays["input_embedding"][0]
    mean = total / _num_items(mask)
    last = summed[np.arange(len(items)), np.maximum(mask.sum(1) - 1, 0)]
    query = last @ arrays["attention_last_kernel"] + mean @ arrays["attention_mean_kernel"]
    hidden = x @ arrays["attention_item_kernel"] + (query + arrays["attention_bias"])[:, None]
    energy = _sigmoid(hidden) @ arrays["attention_out_kernel"]
    vector = (energy * x).sum(1) + mean
    if options["variant"] == "original":
        long_term = np.tanh(vector @ arrays["session_kernel"] + arrays["session_bias"])
        vector = long_term * np.tanh(last @ arrays["last_kernel"] + arrays["last_bias"])
    return vector


def _attmix(
    options: Options, arrays: Arrays, items: Int[np.ndarray, "B L"], mask: Bool[np.ndarray, "B L"], length: int
) -> Float[np.ndarray, "B D"]:
    x = _l2_normalize(arrays["input_embedding"][items] * mask[..., None], axis=-1)
    batch, columns, dim = x.shape
    levels, heads = options["levels"], options["heads"]
    position = mask.sum(1, keepdims=True) - 1 - np.arange(levels)
    recent = np.take_along_axis(x, np.maximum(position, 0)[..., None], axis=1) * (position >= 0)[..., None]
    flat = recent.reshape(batch, levels * dim)
    level_queries = [_affine(flat[:, : i * dim], arrays, f"level_{i}") for i in range(1, levels + 1)]
    queries = _affine(_l2_normalize(np.stack(level_queries, axis=1), axis=1), arrays, "level_query")

    # A plain reshape splits queries and keys into heads, as in the backbone.
    head_dim = dim // heads
    keys = _affine(x, arrays, "item_key").reshape(batch, heads, columns, head_dim)
    energy = queries.reshape(batch, heads, levels, head_dim) @ keys.transpose(0, 1, 3, 2)
    weights = _softmax(2 * _sigmoid(energy)).sum(2)
    weights = _softmax(np.where(mask[:, None], 2 * weights, np.float32(-1e30))) * mask[:, None]
    values = _affine(x, arrays, "item_value").reshape(batch, columns, heads, head_dim).transpose(0, 2, 1, 3)
    attended = (weights[:, :, None] @ values).reshape(batch, dim)

    centered = attended - attended.mean(-1, keepdims=True)
    normalized = centered / np.sqrt((centered * centered).mean(-1, keepdims=True) + np.float32(LAYER_NORM_EPSILON))
    attended = normalized * arrays["layer_norm_scale"] + arrays["layer_norm_bias"]
    return _l2_normalize(_affine(np.concatenate([attended, recent[:, 0]], axis=-1), arrays, "merge"), axis=-1)


def _late(
    options: Options, arrays: Arrays, items: Int[np.ndarray, "B L"], mask: Bool[np.ndarray, "B L"], length: int
) -> Float[np.ndarray, "B L D"]:
    x = arrays["input_embedding"][items]
    if options["shared"]:
        x = _late_table(options, arrays)[items] @ arrays["interaction_kernel"]
    steps_to_end = mask.sum(1, keepdims=True) - np.cumsum(mask, axis=1)
    log_weight = arrays["input_bias"][items] + np.float32(np.log(options["recency"])) * steps_to_end.astype(np.float32)
    bias = np.where(mask, log_weight, np.float32(MASKED_SCORE))[..., None]
    return np.concatenate([x * mask[..., None], bias, np.ones_like(bias)], axis=-1)


def _late_table(options: Options, arrays: Arrays) -> Float[np.ndarray, "V D"]:
    """Returns the vectors of candidate items: the output table, or with shared tables both side by side."""
    output = arrays["output_embedding"]
    return np.concatenate([arrays["input_embedding"], output], axis=1) if options["shared"] else output


_ENCODERS: Mapping[str, Callable[[Options, Arrays, np.ndarray, np.ndarray, int], np.ndarray]] = {
    "fpmc": _fpmc,
    "stamp": _stamp,
    "attmix": _attmix,
    "late": _late,
}


def _num_items(mask: Bool[np.ndarray, "B L"]) -> Float[np.ndarray, "B 1"]:
    """Returns the number of items in each session, at least 1."""
    return np.maximum(mask.sum(1, keepdims=True), 1).astype(np.float32)


def _affine(x: Float[np.ndarray, "..."], arrays: Arrays, name: str) -> Float[np.ndarray, "..."]:
    return x @ arrays[f"{name}_kernel"] + arrays[f"{name}_bias"]


def _l2_normalize(x: Float[np.ndarray, "..."], *, axis: int) -> Float[np.ndarray, "..."]:
    return x / np.maximum(np.sqrt((x * x).sum(axis, keepdims=True)), np.float32(MIN_NORM))


def _sigmoid(x: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    # tanh does not overflow.
    return 0.5 * np.tanh(0.5 * x) + 0.5


def _softmax(x: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    exponentials = np.exp(x - x.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)
