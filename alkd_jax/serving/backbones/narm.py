"""NARM without JAX, see :mod:`alkd_jax.models.narm`."""

import numpy as np
from jaxtyping import Bool, Float, Int

from alkd_jax.serving.backbones import recurrent
from alkd_jax.serving.backbones.graph import Graph, SessionInputs
from alkd_jax.serving.backbones.layers import sigmoid
from alkd_jax.serving.backbones.options import check_choice, check_range
from alkd_jax.serving.backbones.shipped_backbone import Arrays, Options, ShippedBackbone, input_embedding

_MAX_FACTOR = 64


def check(options: Options, dim: int) -> None:
    """Refuses options that are out of range."""
    check_choice("narm", options, "reset", recurrent.RESETS)
    check_range("narm", options, "state_factor", _MAX_FACTOR)


def shapes(options: Options, num_items: int, dim: int) -> dict[str, tuple[int, ...]]:
    """Returns parameter name → shape."""
    width = options["state_factor"] * dim
    return {
        "input_embedding": (num_items + 1, dim),
        "input_kernel": (dim, 3 * width),
        "hidden_kernel": (width, 3 * width),
        "attention_last_kernel": (width, width),
        "attention_item_kernel": (width, width),
        "attention_out_kernel": (width, 1),
        "merge_kernel": (2 * width, dim),
    }


def encode(
    options: Options, arrays: Arrays, items: Int[np.ndarray, "B L"], mask: Bool[np.ndarray, "B L"], length: int
) -> Float[np.ndarray, "B D"]:
    """Returns the session vectors."""
    x = arrays["input_embedding"][items] @ arrays["input_kernel"]
    states = recurrent.states(x, mask, arrays["hidden_kernel"], reset=options["reset"])
    last = states[:, -1]
    hidden = (last @ arrays["attention_last_kernel"])[:, None] + states @ arrays["attention_item_kernel"]
    energy = sigmoid(hidden) @ arrays["attention_out_kernel"] * mask[..., None]
    return np.concatenate([last, (energy * states).sum(1)], axis=1) @ arrays["merge_kernel"]


def add_encoder(graph: Graph, options: Options, session: SessionInputs) -> str:
    """Adds the encoder and returns the name of the session vectors."""
    kernels = {"input_kernel": graph.arrays["input_kernel"], "kernel": graph.arrays["hidden_kernel"]}
    states, last = recurrent.add_states(graph, session, session.x, "unit", reset=options["reset"], **kernels)
    query = graph.add("Unsqueeze", graph.add("MatMul", last, graph.weight("attention_last_kernel")), [1])
    hidden = graph.add("Add", query, graph.add("MatMul", states, graph.weight("attention_item_kernel")))
    energy = graph.add("MatMul", graph.add("Sigmoid", hidden), graph.weight("attention_out_kernel"))
    # The states are 0 where there is no item.
    attended = graph.add("ReduceSum", graph.add("Mul", energy, states), [1], keepdims=0)
    return graph.add("MatMul", graph.add("Concat", last, attended, axis=1), graph.weight("merge_kernel"))


SHIPPED = ShippedBackbone(
    options={"state_factor": 2, "reset": "before"},
    shapes=shapes,
    encode=encode,
    graph=add_encoder,
    check=check,
    item_embeddings=input_embedding,
)
