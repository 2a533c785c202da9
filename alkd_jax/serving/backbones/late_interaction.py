"""Late interaction without JAX, see :mod:`alkd_jax.models.late_interaction`."""

import numpy as np
from jaxtyping import Bool, Float, Int

from alkd_jax.serving.backbones.graph import Graph, SessionInputs
from alkd_jax.serving.backbones.shipped_backbone import Arrays, Options, ShippedBackbone

_MASKED_SCORE = -1e9
"""Added to the score of a position without an item."""


def check(options: Options, dim: int) -> None:
    """Refuses a recency that is out of range."""
    if not 0.0 < options["recency"] <= 1.0:
        raise ValueError(f"late: recency is {options['recency']}; expected a number in (0, 1]")


def shapes(options: Options, num_items: int, dim: int) -> dict[str, tuple[int, ...]]:
    """Returns parameter name → shape."""
    table = (num_items + 1, dim)
    found: dict[str, tuple[int, ...]] = {"input_embedding": table, "output_embedding": table}
    found |= {"input_bias": table[:1], "output_bias": table[:1]}
    return found | ({"interaction_kernel": (2 * dim, 2 * dim)} if options["shared"] else {})


def item_vectors(options: Options, arrays: Arrays) -> Float[np.ndarray, "V D"]:
    """Returns the vectors of candidate items: the output table, or with shared tables both side by side."""
    output = arrays["output_embedding"]
    return np.concatenate([arrays["input_embedding"], output], axis=1) if options["shared"] else output


def item_embeddings(options: Options, arrays: Arrays) -> Float[np.ndarray, "V D"]:
    """Returns the table Y: item vectors, a column of ones, and the items' biases."""
    bias = arrays["output_bias"][:, None]
    return np.concatenate([item_vectors(options, arrays), np.ones_like(bias), bias], axis=1)


def encode(
    options: Options, arrays: Arrays, items: Int[np.ndarray, "B L"], mask: Bool[np.ndarray, "B L"], length: int
) -> Float[np.ndarray, "B L D"]:
    """Returns the session vectors."""
    x = arrays["input_embedding"][items]
    if options["shared"]:
        x = item_vectors(options, arrays)[items] @ arrays["interaction_kernel"]
    steps_to_end = mask.sum(1, keepdims=True) - np.cumsum(mask, axis=1)
    log_weight = arrays["input_bias"][items] + np.float32(np.log(options["recency"])) * steps_to_end.astype(np.float32)
    bias = np.where(mask, log_weight, np.float32(_MASKED_SCORE))[..., None]
    return np.concatenate([x * mask[..., None], bias, np.ones_like(bias)], axis=-1)


def add_encoder(graph: Graph, options: Options, session: SessionInputs) -> str:
    """Adds the encoder and returns the name of the session vectors."""
    x = session.x
    if options["shared"]:
        output_rows = graph.add("Gather", graph.weight("output_embedding"), session.items, axis=0)
        pairs = graph.add("Concat", session.embeddings, output_rows, axis=-1)
        x = graph.add("Mul", graph.add("MatMul", pairs, graph.weight("interaction_kernel")), session.mask_column)
    steps_to_end = graph.add("Sub", graph.add("Sub", session.num_real, 1.0), np.arange(session.length)[None] * 1.0)
    bias = graph.add("Gather", graph.weight("input_bias"), session.items, axis=0)
    bias = graph.add("Add", bias, graph.add("Mul", steps_to_end, float(np.log(options["recency"]))))
    bias = graph.add("Unsqueeze", graph.add("Where", session.mask, bias, _MASKED_SCORE), [2])
    ones = graph.add("Add", graph.add("Mul", session.mask_column, 0.0), 1.0)
    return graph.add("Concat", x, bias, ones, axis=-1)


SHIPPED = ShippedBackbone(
    options={"shared": False, "recency": 1.0},
    shapes=shapes,
    encode=encode,
    graph=add_encoder,
    check=check,
    item_embeddings=item_embeddings,
    has_item_vectors=True,
)
