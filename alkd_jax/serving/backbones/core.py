"""CORE without JAX, see :mod:`alkd_jax.models.core`."""

import functools
import math
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from alkd_jax.serving.backbones.graph import FLOAT, Graph, SessionInputs
from alkd_jax.serving.backbones.layers import affine, affine_norm, l2_normalize, softmax
from alkd_jax.serving.backbones.options import check_choice, check_range
from alkd_jax.serving.backbones.shipped_backbone import MAX_LENGTH, Arrays, Options, ShippedBackbone

_VARIANTS = ("trm", "ave")
_EPSILON = 1e-12
_MASKED_ENERGY = -1e9
_LARGEST = {"layers": 100, "heads": 1000, "inner_dim": 2**16, "max_length": 2**12}
_MAX_WEIGHTS = 2**24
"""The most attention weights of one session that are held in an array."""


def check(options: Options, dim: int) -> None:
    """Refuses options that are out of range."""
    check_choice("core", options, "variant", _VARIANTS)
    for name, largest in _LARGEST.items():
        check_range("core", options, name, largest)
    if options["variant"] == "trm" and dim % options["heads"]:
        raise ValueError(f"core: heads is {options['heads']}; expected a divisor of the width {dim}")
    if not 0 < options["temperature"] < math.inf:
        raise ValueError(f"core: temperature is {options['temperature']}; expected a positive number")


def max_length(options: Options, dim: int) -> int:
    """Returns the largest L that has a position vector, and with which an answer takes bounded memory."""
    if options["variant"] == "ave":
        return MAX_LENGTH
    return min(options["max_length"], math.isqrt(_MAX_WEIGHTS // options["heads"]))


def shapes(options: Options, num_items: int, dim: int) -> dict[str, tuple[int, ...]]:
    """Returns parameter name → shape."""
    found: dict[str, tuple[int, ...]] = {"input_embedding": (num_items + 1, dim)}
    if options["variant"] == "ave":
        return found
    affines, norms = {"readout": (dim, 1)}, ["input_norm"]
    for layer in _layers(options):
        affines |= {f"{layer}_{part}": (dim, dim) for part in ("query", "key", "value", "attended")}
        affines |= {f"{layer}_inner": (dim, options["inner_dim"]), f"{layer}_outer": (options["inner_dim"], dim)}
        norms += [f"{layer}_attention_norm", f"{layer}_feed_forward_norm"]
    for name, shape in affines.items():
        found |= {f"{name}_kernel": shape, f"{name}_bias": shape[1:]}
    for name in norms:
        found |= {f"{name}_scale": (dim,), f"{name}_bias": (dim,)}
    return found | {"position_embedding": (options["max_length"], dim)}


def _layers(options: Options) -> list[str]:
    return [f"layer_{number}" for number in range(1, options["layers"] + 1)]


def item_embeddings(options: Options, arrays: Arrays) -> Float[np.ndarray, "V D"]:
    """Returns the table Y, whose rows have norm 1."""
    return l2_normalize(arrays["input_embedding"], axis=-1)


def encode(
    options: Options, arrays: Arrays, items: Int[np.ndarray, "B L"], mask: Bool[np.ndarray, "B L"], length: int
) -> Float[np.ndarray, "B D"]:
    """Returns the session vectors."""
    x = arrays["input_embedding"][items]
    energy = _transformer(options, arrays, x, mask) if options["variant"] == "trm" else np.zeros_like(x[..., 0])
    weight = softmax(np.where(mask, energy, np.float32(_MASKED_ENERGY))) * mask
    return l2_normalize((weight[..., None] * x).sum(1), axis=-1) / np.float32(options["temperature"])


def _transformer(
    options: Options, arrays: Arrays, x: Float[np.ndarray, "B L D"], mask: Bool[np.ndarray, "B L"]
) -> Float[np.ndarray, "B L"]:
    batch, length, dim = x.shape
    heads = options["heads"]
    norm = functools.partial(affine_norm, arrays=arrays, epsilon=_EPSILON)
    h = norm(x + arrays["position_embedding"][:length], name="input_norm")
    visible = np.tril(np.ones((length, length), bool)) & mask[:, None, None]
    for layer in _layers(options):
        query, key, value = (
            affine(h, arrays, f"{layer}_{part}").reshape(batch, length, heads, dim // heads).transpose(0, 2, 1, 3)
            for part in ("query", "key", "value")
        )
        energy = query @ key.transpose(0, 1, 3, 2) / np.float32(math.sqrt(dim // heads))
        weight = softmax(np.where(visible, energy, np.float32(_MASKED_ENERGY)))
        attended = (weight @ value).transpose(0, 2, 1, 3).reshape(batch, length, dim)
        h = norm(h + affine(attended, arrays, f"{layer}_attended"), name=f"{layer}_attention_norm")
        inner = _gelu(affine(h, arrays, f"{layer}_inner"))
        h = norm(h + affine(inner, arrays, f"{layer}_outer"), name=f"{layer}_feed_forward_norm")
    return affine(h, arrays, "readout")[..., 0]


def _gelu(x: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """``x Φ(x)``; NumPy has no error function, so it is that of Abramowitz and Stegun, 7.1.26, error below 1.5e-7."""
    z = np.abs(x).astype(np.float64) / math.sqrt(2)
    t = 1 / (1 + 0.3275911 * z)
    tail = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    upper = 1 - 0.5 * tail * np.exp(-z * z)
    return (x * np.where(x < 0, 1 - upper, upper)).astype(x.dtype)


def add_encoder(graph: Graph, options: Options, session: SessionInputs) -> str:
    """Adds the encoder and returns the name of the session vectors."""
    energy = (
        _add_transformer(graph, options, session)
        if options["variant"] == "trm"
        else graph.add("Cast", session.mask, to=FLOAT)
    )
    weight = graph.add("Softmax", graph.add("Where", session.mask, energy, _MASKED_ENERGY), axis=-1)
    # The item vectors are 0 where there is no item.
    mean = graph.add("ReduceSum", graph.add("Mul", graph.add("Unsqueeze", weight, [2]), session.x), [1], keepdims=0)
    return graph.add("Div", graph.l2_normalize(mean, -1), options["temperature"])


def _add_transformer(graph: Graph, options: Options, session: SessionInputs) -> str:
    heads, length, dim = options["heads"], session.length, graph.arrays["input_embedding"].shape[1]
    positions = graph.add("Slice", graph.weight("position_embedding"), [0], [length], [0])
    h = graph.layer_norm(graph.add("Add", session.x, positions), "input_norm", epsilon=_EPSILON)
    causal: Any = np.where(np.tril(np.ones((length, length), bool)), 0.0, 2 * _MASKED_ENERGY)
    key_mask = graph.add("Unsqueeze", session.mask, [1, 2])

    def split(x: str, name: str, perm: list[int]) -> str:
        parts = graph.add("Reshape", graph.affine(x, name), [-1, length, heads, dim // heads])
        return graph.add("Transpose", parts, perm=perm)

    for layer in _layers(options):
        query, value = split(h, f"{layer}_query", [0, 2, 1, 3]), split(h, f"{layer}_value", [0, 2, 1, 3])
        energy = graph.add("MatMul", query, split(h, f"{layer}_key", [0, 2, 3, 1]))
        energy = graph.add("Div", energy, math.sqrt(dim // heads))
        energy = graph.add("Where", key_mask, graph.add("Add", energy, causal), _MASKED_ENERGY)
        attended = graph.add("MatMul", graph.add("Softmax", energy, axis=-1), value)
        attended = graph.add("Reshape", graph.add("Transpose", attended, perm=[0, 2, 1, 3]), [-1, length, dim])
        h = graph.add("Add", h, graph.affine(attended, f"{layer}_attended"))
        h = graph.layer_norm(h, f"{layer}_attention_norm", epsilon=_EPSILON)
        inner = graph.affine(h, f"{layer}_inner")
        upper = graph.add("Add", graph.add("Erf", graph.add("Div", inner, math.sqrt(2))), 1.0)
        inner = graph.add("Mul", graph.add("Mul", inner, 0.5), upper)
        h = graph.add("Add", h, graph.affine(inner, f"{layer}_outer"))
        h = graph.layer_norm(h, f"{layer}_feed_forward_norm", epsilon=_EPSILON)
    return graph.add("Squeeze", graph.affine(h, "readout"), [2])


SHIPPED = ShippedBackbone(
    options={
        "variant": "trm",
        "layers": 2,
        "heads": 2,
        "inner_dim": 256,
        "max_length": 50,
        "temperature": 0.07,
    },
    shapes=shapes,
    encode=encode,
    graph=add_encoder,
    check=check,
    item_embeddings=item_embeddings,
    max_length=max_length,
)
