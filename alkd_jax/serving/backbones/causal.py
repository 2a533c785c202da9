"""SASRec, gSASRec, eSASRec and HSTU without JAX, see :mod:`alkd_jax.models.causal`."""

import functools
from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Bool, Float, Int

from alkd_jax.errors import shown
from alkd_jax.serving.backbones import causal_graph
from alkd_jax.serving.backbones.layers import affine, affine_norm, l2_normalize, layer_norm, sigmoid, silu, softmax
from alkd_jax.serving.backbones.options import check_choice, check_range
from alkd_jax.serving.backbones.shipped_backbone import Arrays, Options, ShippedBackbone

_MAX_LENGTH, _MAX_BLOCKS, _MAX_MULTIPLIER = 2**12, 2**8, 2**6
_PROJECTIONS = ("query", "key", "value")
_MASKED = np.float32(-1e30)

_BLOCKS: Options = {"max_length": 50, "blocks": 2, "heads": 1, "scaled": True, "separate": False}
_SASREC: Options = {**_BLOCKS, "variant": "original", "multiplier": 1}


def check(options: Options, dim: int, *, backbone: str) -> None:
    """Refuses options that are out of range."""
    for name, largest in (("max_length", _MAX_LENGTH), ("blocks", _MAX_BLOCKS), ("heads", dim)):
        check_range(backbone, options, name, largest)
    if dim % options["heads"]:
        raise ValueError(f"{backbone}: heads is {shown(options['heads'])}; expected a divisor of the width {dim}")
    if backbone == "hstu":
        check_choice(backbone, options, "divisor", ("maximum", "length"))
        if options["time"]:
            raise ValueError(f"{backbone}: time is True; expected False")
        if not 0 < options["temperature"] < np.inf:
            raise ValueError(f"{backbone}: temperature is {options['temperature']}; expected a positive number")
    else:
        check_choice(backbone, options, "variant", ("original", "pre_norm"))
        check_range(backbone, options, "multiplier", _MAX_MULTIPLIER)


def shapes(options: Options, num_items: int, dim: int, *, backbone: str) -> dict[str, tuple[int, ...]]:
    """Returns parameter name → shape."""
    tables = ("input_embedding", "output_embedding") if options["separate"] else ("input_embedding",)
    found: dict[str, tuple[int, ...]] = {name: (num_items + 1, dim) for name in tables}
    found["positions"] = (options["max_length"], dim)
    for number in range(1, options["blocks"] + 1):
        found |= {f"block_{number}_{name}": shape for name, shape in _block_shapes(backbone, options, dim).items()}
    if backbone != "hstu":
        found |= {"output_norm_scale": (dim,), "output_norm_bias": (dim,)}
    return found


def _block_shapes(backbone: str, options: Options, dim: int) -> dict[str, tuple[int, ...]]:
    def maps(*names: str) -> dict[str, tuple[int, ...]]:
        kernels: dict[str, tuple[int, ...]] = {f"{name}_kernel": (dim, dim) for name in names}
        return kernels | {f"{name}_bias": (dim,) for name in names}

    if backbone == "hstu":
        return {"joint_kernel": (dim, 4 * dim), "relative_bias": (options["max_length"],), **maps("outer")}
    hidden = options["multiplier"] * dim
    found: dict[str, tuple[int, ...]] = {"inner_kernel": (dim, hidden), "outer_kernel": (hidden, dim)}
    found |= {f"{name}_norm_{part}": (dim,) for name in ("attention", "forward") for part in ("scale", "bias")}
    found |= maps(*_PROJECTIONS)
    if backbone == "esasrec":
        return found | maps("attention_out", "attention_gate", "forward_gate") | {"gate_kernel": (dim, hidden)}
    found |= {"inner_bias": (hidden,), "outer_bias": (dim,)}
    return found if options["variant"] == "original" else found | maps("attention_out")


def encode(
    options: Options,
    arrays: Arrays,
    items: Int[np.ndarray, "B L"],
    mask: Bool[np.ndarray, "B L"],
    length: int,
    *,
    backbone: str,
) -> Float[np.ndarray, "B D"]:
    """Returns the session vectors."""
    num_sessions, columns = items.shape
    x = arrays["input_embedding"][items]
    x = x * np.float32(x.shape[-1] ** 0.5) if options["scaled"] else x
    x = x + arrays["positions"][:columns]
    visible = np.tril(np.ones((columns, columns), bool))
    for number in range(1, options["blocks"] + 1):
        prefix = f"block_{number}_"
        own = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
        x = _BLOCKS_OF[backbone](options, own, x, visible)
    last = x[np.arange(num_sessions), np.maximum(mask.sum(1) - 1, 0)]
    if backbone == "hstu":
        vectors = l2_normalize(last, axis=-1) / np.float32(options["temperature"])
    else:
        vectors = affine_norm(last, arrays, "output_norm")
    return vectors * mask.any(1, keepdims=True)


def item_embeddings(options: Options, arrays: Arrays) -> Float[np.ndarray, "V D"]:
    """Returns the table Y that scores items; row 0 is padding."""
    return arrays["output_embedding" if options["separate"] else "input_embedding"]


def normalized_item_embeddings(options: Options, arrays: Arrays) -> Float[np.ndarray, "V D"]:
    """Returns the table Y of HSTU, of norm 1; row 0 is padding."""
    return l2_normalize(item_embeddings(options, arrays).astype(np.float32), axis=-1)


def _sasrec(options: Options, own: Arrays, x: Float[np.ndarray, "B L D"], visible: np.ndarray) -> np.ndarray:
    normalized = affine_norm(x, own, "attention_norm")
    is_original = options["variant"] == "original"
    attended = _attention(options, own, normalized, x if is_original else normalized, visible)
    if is_original:
        residual = inner = affine_norm(normalized + attended, own, "forward_norm")
    else:
        residual = x + affine(attended, own, "attention_out")
        inner = affine_norm(residual, own, "forward_norm")
    return residual + affine(np.maximum(affine(inner, own, "inner"), 0), own, "outer")


def _esasrec(options: Options, own: Arrays, x: Float[np.ndarray, "B L D"], visible: np.ndarray) -> np.ndarray:
    normalized = affine_norm(x, own, "attention_norm")
    attended = _attention(options, own, normalized, normalized, visible)
    x = x + sigmoid(affine(x, own, "attention_gate")) * affine(attended, own, "attention_out")
    inner = affine_norm(x, own, "forward_norm")
    hidden = silu(inner @ own["gate_kernel"]) * (inner @ own["inner_kernel"])
    return x + sigmoid(affine(x, own, "forward_gate")) * (hidden @ own["outer_kernel"])


def _hstu(options: Options, own: Arrays, x: Float[np.ndarray, "B L D"], visible: np.ndarray) -> np.ndarray:
    gate, *parts = np.split(silu(layer_norm(x) @ own["joint_kernel"]), 4, axis=-1)
    value, query, key = (_split_heads(part, options["heads"]) for part in parts)
    position = np.arange(x.shape[1])
    distance = np.maximum(position[:, None] - position, 0)
    weights = silu(query @ key.swapaxes(-1, -2) + own["relative_bias"][distance]) * visible
    divisor = position[:, None] + 1 if options["divisor"] == "length" else np.array(options["max_length"])
    attended = _join_heads(weights / divisor.astype(np.float32) @ value)
    return x + affine(layer_norm(attended) * gate, own, "outer")


_BLOCKS_OF: Mapping[str, Callable[[Options, Arrays, np.ndarray, np.ndarray], np.ndarray]] = {
    "sasrec": _sasrec,
    "gsasrec": _sasrec,
    "esasrec": _esasrec,
    "hstu": _hstu,
}


def _attention(
    options: Options,
    own: Arrays,
    normalized: Float[np.ndarray, "B L D"],
    source: Float[np.ndarray, "B L D"],
    visible: Bool[np.ndarray, "L L"],
) -> Float[np.ndarray, "B L D"]:
    """Multi-head attention with queries from ``normalized`` and keys and values from ``source``."""
    projected = (affine(normalized if name == "query" else source, own, name) for name in _PROJECTIONS)
    query, key, value = (_split_heads(part, options["heads"]) for part in projected)
    energy = query @ key.swapaxes(-1, -2) / np.float32(np.sqrt(query.shape[-1]))
    return _join_heads(softmax(np.where(visible, energy, _MASKED)) @ value)


def _split_heads(x: Float[np.ndarray, "B L D"], heads: int) -> Float[np.ndarray, "B H L P"]:
    return x.reshape(*x.shape[:2], heads, -1).swapaxes(1, 2)


def _join_heads(x: Float[np.ndarray, "B H L P"]) -> Float[np.ndarray, "B L D"]:
    return x.swapaxes(1, 2).reshape(x.shape[0], x.shape[2], -1)


def _max_length(options: Options, dim: int) -> int:
    return int(options["max_length"])


def _shipped(backbone: str, options: Options) -> ShippedBackbone:
    return ShippedBackbone(
        options=options,
        shapes=functools.partial(shapes, backbone=backbone),
        encode=functools.partial(encode, backbone=backbone),
        graph=functools.partial(causal_graph.add_encoder, backbone=backbone),
        check=functools.partial(check, backbone=backbone),
        item_embeddings=normalized_item_embeddings if backbone == "hstu" else item_embeddings,
        max_length=_max_length,
    )


SHIPPED: Mapping[str, ShippedBackbone] = {
    "sasrec": _shipped("sasrec", _SASREC),
    "gsasrec": _shipped("gsasrec", {**_SASREC, "scaled": False}),
    "esasrec": _shipped("esasrec", {**_SASREC, "blocks": 1, "variant": "pre_norm", "multiplier": 4}),
    "hstu": _shipped("hstu", {**_BLOCKS, "divisor": "maximum", "temperature": 0.05, "time": False}),
}
