"""AttMix without JAX, see :mod:`alkd_jax.models.attmix`."""

import numpy as np
from jaxtyping import Bool, Float, Int

from alkd_jax.errors import shown
from alkd_jax.serving.backbones.graph import FLOAT, Graph, SessionInputs
from alkd_jax.serving.backbones.layers import affine, affine_norm, l2_normalize, sigmoid, softmax
from alkd_jax.serving.backbones.shipped_backbone import MAX_LENGTH, Arrays, Options, ShippedBackbone

_MAX_LEVELS = 1000
_MAX_NUMBERS = 2**20
"""The most numbers of one session that are held in an array."""


def check(options: Options, dim: int) -> None:
    """Refuses levels and heads that are out of range."""
    levels, heads = options["levels"], options["heads"]
    if not 1 <= levels <= _MAX_LEVELS:
        raise ValueError(f"attmix: levels is {shown(levels)}; expected 1..{_MAX_LEVELS}")
    if heads < 1 or dim % heads:
        raise ValueError(f"attmix: heads is {shown(heads)}; expected a divisor of the width {dim}")


def max_length(options: Options, dim: int) -> int:
    """Returns the largest L with which an answer takes bounded memory."""
    return min(MAX_LENGTH, _MAX_NUMBERS // max(options["levels"] * options["heads"], dim))


def shapes(options: Options, num_items: int, dim: int) -> dict[str, tuple[int, ...]]:
    """Returns parameter name → shape."""
    rows = {f"level_{i}": i * dim for i in range(1, options["levels"] + 1)}
    rows |= {"level_query": dim, "item_key": dim, "item_value": dim, "merge": 2 * dim}
    found: dict[str, tuple[int, ...]] = dict.fromkeys(("input_embedding", "output_embedding"), (num_items + 1, dim))
    for name, inputs in rows.items():
        found |= {f"{name}_kernel": (inputs, dim), f"{name}_bias": (dim,)}
    return found | {"layer_norm_scale": (dim,), "layer_norm_bias": (dim,)}


def encode(
    options: Options, arrays: Arrays, items: Int[np.ndarray, "B L"], mask: Bool[np.ndarray, "B L"], length: int
) -> Float[np.ndarray, "B D"]:
    """Returns the session vectors."""
    x = l2_normalize(arrays["input_embedding"][items] * mask[..., None], axis=-1)
    batch, columns, dim = x.shape
    levels, heads = options["levels"], options["heads"]
    position = mask.sum(1, keepdims=True) - 1 - np.arange(levels)
    recent = np.take_along_axis(x, np.maximum(position, 0)[..., None], axis=1) * (position >= 0)[..., None]
    flat = recent.reshape(batch, levels * dim)
    level_queries = [affine(flat[:, : i * dim], arrays, f"level_{i}") for i in range(1, levels + 1)]
    queries = affine(l2_normalize(np.stack(level_queries, axis=1), axis=1), arrays, "level_query")

    # A plain reshape splits queries and keys into heads, as in the backbone.
    head_dim = dim // heads
    keys = affine(x, arrays, "item_key").reshape(batch, heads, columns, head_dim)
    energy = queries.reshape(batch, heads, levels, head_dim) @ keys.transpose(0, 1, 3, 2)
    weights = softmax(2 * sigmoid(energy)).sum(2)
    weights = softmax(np.where(mask[:, None], 2 * weights, np.float32(-1e30))) * mask[:, None]
    values = affine(x, arrays, "item_value").reshape(batch, columns, heads, head_dim).transpose(0, 2, 1, 3)
    attended = (weights[:, :, None] @ values).reshape(batch, dim)

    attended = affine_norm(attended, arrays, "layer_norm")
    return l2_normalize(affine(np.concatenate([attended, recent[:, 0]], axis=-1), arrays, "merge"), axis=-1)


def add_encoder(graph: Graph, options: Options, session: SessionInputs) -> str:
    """Adds the encoder and returns the name of the session vectors."""
    levels, heads = options["levels"], options["heads"]
    dim = graph.arrays["item_key_kernel"].shape[1]
    head_dim = dim // heads
    x = graph.l2_normalize(session.x, -1)
    # The position of the i-th last item; where there is none it is negative, and equals no position.
    position = graph.add("Sub", session.num_real, np.arange(1, levels + 1)[None] * 1.0)
    selection = graph.add("Equal", graph.add("Unsqueeze", position, [2]), np.arange(session.length)[None, None] * 1.0)
    recent = graph.add("MatMul", graph.add("Cast", selection, to=FLOAT), x)
    flat = graph.add("Reshape", recent, [-1, levels * dim])
    queries = []
    for i in range(1, levels + 1):
        last_i = graph.add("Slice", flat, [0], [i * dim], [1])
        queries.append(graph.add("Unsqueeze", graph.affine(last_i, f"level_{i}"), [1]))
    query = graph.l2_normalize(graph.add("Concat", *queries, axis=1), 1)

    query = graph.add("Reshape", graph.affine(query, "level_query"), [-1, heads, levels, head_dim])
    key = graph.add("Reshape", graph.affine(x, "item_key"), [-1, heads, session.length, head_dim])
    energy = graph.add("MatMul", query, graph.add("Transpose", key, perm=[0, 1, 3, 2]))
    weight = graph.add("Softmax", graph.add("Mul", graph.add("Sigmoid", energy), 2.0), axis=-1)
    weight = graph.add("Mul", graph.add("ReduceSum", weight, [2], keepdims=0), 2.0)
    mask = graph.add("Unsqueeze", session.mask, [1])
    weight = graph.add("Softmax", graph.add("Where", mask, weight, -1e30), axis=-1)
    weight = graph.add("Mul", weight, graph.add("Cast", mask, to=FLOAT))
    value = graph.add("Reshape", graph.affine(x, "item_value"), [-1, session.length, heads, head_dim])
    value = graph.add("Transpose", value, perm=[0, 2, 1, 3])
    attended = graph.add("MatMul", graph.add("Unsqueeze", weight, [2]), value)
    attended = graph.add("Reshape", attended, [-1, dim])

    normalized = graph.layer_norm(attended, "layer_norm")
    pairs = graph.add("Concat", normalized, graph.add("Gather", recent, 0, axis=1), axis=-1)
    return graph.l2_normalize(graph.affine(pairs, "merge"), -1)


SHIPPED = ShippedBackbone(
    options={"levels": 10, "heads": 2},
    shapes=shapes,
    encode=encode,
    graph=add_encoder,
    check=check,
    max_length=max_length,
    # AttMix normalizes over the padding too, and splits all L columns into heads.
    reads_all_columns=True,
)
