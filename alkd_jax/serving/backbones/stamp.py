"""STAMP without JAX, see :mod:`alkd_jax.models.stamp`."""

import numpy as np
from jaxtyping import Bool, Float, Int

from alkd_jax.errors import shown
from alkd_jax.serving.backbones.graph import Graph, SessionInputs, add_last_row
from alkd_jax.serving.backbones.layers import num_real_items, sigmoid
from alkd_jax.serving.backbones.shipped_backbone import Arrays, Options, ShippedBackbone

VARIANTS = ("alkdrec", "original")


def check(options: Options, dim: int) -> None:
    """Refuses an unknown variant."""
    if options["variant"] not in VARIANTS:
        raise ValueError(f"stamp: variant is {shown(options['variant'])}; expected {' or '.join(VARIANTS)}")


def shapes(options: Options, num_items: int, dim: int) -> dict[str, tuple[int, ...]]:
    """Returns parameter name → shape."""
    table, square = (num_items + 1, dim), (dim, dim)
    found: dict[str, tuple[int, ...]] = {"input_embedding": table}
    found |= {f"attention_{part}_kernel": square for part in ("item", "last", "mean")}
    found |= {"attention_bias": (dim,), "attention_out_kernel": (dim, 1)}
    if options["variant"] == "original":
        return found | {"session_kernel": square, "session_bias": (dim,), "last_kernel": square, "last_bias": (dim,)}
    return found | {"output_embedding": table}


def item_embeddings(options: Options, arrays: Arrays) -> Float[np.ndarray, "V D"]:
    """Returns the table Y: the output table, or the input table in the original form."""
    return arrays["input_embedding" if options["variant"] == "original" else "output_embedding"]


def encode(
    options: Options, arrays: Arrays, items: Int[np.ndarray, "B L"], mask: Bool[np.ndarray, "B L"], length: int
) -> Float[np.ndarray, "B D"]:
    """Returns the session vectors."""
    embeddings = arrays["input_embedding"][items]
    x = embeddings * mask[..., None]
    summed = embeddings if options["sum_padding"] else x
    total = summed.sum(1)
    if options["sum_padding"]:
        total += np.float32(length - items.shape[1]) * arrays["input_embedding"][0]
    mean = total / num_real_items(mask)
    last = summed[np.arange(len(items)), np.maximum(mask.sum(1) - 1, 0)]
    query = last @ arrays["attention_last_kernel"] + mean @ arrays["attention_mean_kernel"]
    hidden = x @ arrays["attention_item_kernel"] + (query + arrays["attention_bias"])[:, None]
    energy = sigmoid(hidden) @ arrays["attention_out_kernel"]
    vector = (energy * x).sum(1) + mean
    if options["variant"] == "original":
        long_term = np.tanh(vector @ arrays["session_kernel"] + arrays["session_bias"])
        vector = long_term * np.tanh(last @ arrays["last_kernel"] + arrays["last_bias"])
    return vector


def add_encoder(graph: Graph, options: Options, session: SessionInputs) -> str:
    """Adds the encoder and returns the name of the session vectors."""
    summed = session.embeddings if options["sum_padding"] else session.x
    mean = graph.add("Div", graph.add("ReduceSum", summed, [1], keepdims=0), session.divisor)
    last = add_last_row(graph, session, summed)

    def product(x: str, part: str) -> str:
        return graph.add("MatMul", x, graph.weight(f"attention_{part}_kernel"))

    query = graph.add("Add", product(last, "last"), product(mean, "mean"))
    query = graph.add("Add", query, graph.weight("attention_bias"))
    hidden = graph.add("Add", product(session.x, "item"), graph.add("Unsqueeze", query, [1]))
    energy = product(graph.add("Sigmoid", hidden), "out")
    vector = graph.add("Add", graph.add("ReduceSum", graph.add("Mul", energy, session.x), [1], keepdims=0), mean)
    if options["variant"] == "original":
        long_term = graph.add("Tanh", graph.affine(vector, "session"))
        vector = graph.add("Mul", long_term, graph.add("Tanh", graph.affine(last, "last")))
    return vector


SHIPPED = ShippedBackbone(
    options={"variant": "alkdrec", "sum_padding": False},
    shapes=shapes,
    encode=encode,
    graph=add_encoder,
    check=check,
    item_embeddings=item_embeddings,
)
