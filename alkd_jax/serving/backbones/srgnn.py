"""SR-GNN without JAX, see :mod:`alkd_jax.models.srgnn`."""

import numpy as np
from jaxtyping import Bool, Float, Int

from alkd_jax.serving.backbones import recurrent
from alkd_jax.serving.backbones.graph import FLOAT, Graph, SessionInputs, add_last_row
from alkd_jax.serving.backbones.layers import sigmoid
from alkd_jax.serving.backbones.options import check_choice, check_range
from alkd_jax.serving.backbones.shipped_backbone import Arrays, Options, ShippedBackbone, input_embedding

_EDGES = ("counted", "binary")
_MAX_STEPS = 100
_MAX_ITEMS = 1024
"""The longest session, whose graph has as many numbers as its square."""


def check(options: Options, dim: int) -> None:
    """Refuses options that are out of range."""
    check_choice("srgnn", options, "edges", _EDGES)
    check_choice("srgnn", options, "reset", recurrent.RESETS)
    check_range("srgnn", options, "steps", _MAX_STEPS)


def max_length(options: Options, dim: int) -> int:
    """Returns the largest L with which an answer takes bounded memory."""
    return _MAX_ITEMS


def shapes(options: Options, num_items: int, dim: int) -> dict[str, tuple[int, ...]]:
    """Returns parameter name → shape."""
    square = (dim, dim)
    return {
        "input_embedding": (num_items + 1, dim),
        "incoming_kernel": square,
        "incoming_bias": (dim,),
        "outgoing_kernel": square,
        "outgoing_bias": (dim,),
        "input_kernel": (2 * dim, 3 * dim),
        "hidden_kernel": (dim, 3 * dim),
        "attention_last_kernel": square,
        "attention_item_kernel": square,
        "attention_bias": (dim,),
        "attention_out_kernel": (dim, 1),
        "merge_kernel": (2 * dim, dim),
    }


def encode(
    options: Options, arrays: Arrays, items: Int[np.ndarray, "B L"], mask: Bool[np.ndarray, "B L"], length: int
) -> Float[np.ndarray, "B D"]:
    """Returns the session vectors."""
    x = arrays["input_embedding"][items]
    incoming, outgoing = _edges(items, mask, binary=options["edges"] == "binary")
    for _ in range(options["steps"]):
        received = [
            neighbors @ (x @ arrays[f"{side}_kernel"]) + arrays[f"{side}_bias"]
            for side, neighbors in (("incoming", incoming), ("outgoing", outgoing))
        ]
        gates = np.concatenate(received, axis=-1) @ arrays["input_kernel"]
        x = recurrent.step(gates, x, arrays["hidden_kernel"], reset=options["reset"])
    last = x[np.arange(len(x)), np.maximum(mask.sum(1) - 1, 0)] * mask.any(1, keepdims=True)
    query = last @ arrays["attention_last_kernel"] + arrays["attention_bias"]
    energy = sigmoid(query[:, None] + x @ arrays["attention_item_kernel"]) @ arrays["attention_out_kernel"]
    return np.concatenate([last, (energy * mask[..., None] * x).sum(1)], axis=1) @ arrays["merge_kernel"]


def _edges(
    items: Int[np.ndarray, "B L"], mask: Bool[np.ndarray, "B L"], *, binary: bool
) -> tuple[Float[np.ndarray, "B L L"], Float[np.ndarray, "B L L"]]:
    """Returns the weights of incoming and outgoing edges between positions, each of which stands for its item."""
    is_same = (items[:, :, None] == items[:, None]) & mask[:, :, None] & mask[:, None]
    is_edge = mask[:, :-1] & mask[:, 1:]
    if binary:
        repeats = is_same[:, :-1, :-1] & is_same[:, 1:, 1:] & is_edge[:, None]
        is_edge = is_edge & ~np.tril(repeats, -1).any(2)
    found = np.zeros((2, *is_same.shape), np.float32)
    found[0, :, :, :-1] = is_same[:, :, 1:] & is_edge[:, None]
    found[1, :, :, 1:] = is_same[:, :, :-1] & is_edge[:, None]
    found /= np.maximum(found.sum(-1, keepdims=True), 1)
    return found[0], found[1]


def add_encoder(graph: Graph, options: Options, session: SessionInputs) -> str:
    """Adds the encoder and returns the name of the session vectors."""
    x, neighbors = session.x, dict(zip(("incoming", "outgoing"), _add_edges(graph, options, session), strict=True))
    kernel = graph.weight("hidden_kernel")
    for _ in range(options["steps"]):
        received = []
        for side, weights in neighbors.items():
            sums = graph.add("MatMul", weights, graph.add("MatMul", x, graph.weight(f"{side}_kernel")))
            received.append(graph.add("Add", sums, graph.weight(f"{side}_bias")))
        gates = graph.add("MatMul", graph.add("Concat", *received, axis=-1), graph.weight("input_kernel"))
        dim = graph.arrays["hidden_kernel"].shape[0]
        x = recurrent.add_step(graph, gates, x, kernel, dim=dim, reset=options["reset"])
    x = graph.add("Mul", x, session.mask_column)
    last = add_last_row(graph, session, x)
    query = graph.add("MatMul", last, graph.weight("attention_last_kernel"))
    query = graph.add("Unsqueeze", graph.add("Add", query, graph.weight("attention_bias")), [1])
    hidden = graph.add(
        "Sigmoid", graph.add("Add", query, graph.add("MatMul", x, graph.weight("attention_item_kernel")))
    )
    weighted = graph.add("Mul", graph.add("MatMul", hidden, graph.weight("attention_out_kernel")), x)
    attended = graph.add("ReduceSum", weighted, [1], keepdims=0)
    return graph.add("MatMul", graph.add("Concat", last, attended, axis=1), graph.weight("merge_kernel"))


def _add_edges(graph: Graph, options: Options, session: SessionInputs) -> tuple[str, str]:
    """Adds the weights of incoming and outgoing edges, of which edge t leads from position t to position t + 1."""
    length = session.length
    row, column = graph.add("Unsqueeze", session.items, [1]), graph.add("Unsqueeze", session.items, [2])
    is_same = graph.add("Mul", graph.add("Cast", graph.add("Equal", row, column), to=FLOAT), session.mask_column)
    is_same = graph.add("Mul", is_same, graph.add("Transpose", session.mask_column, perm=[0, 2, 1]))
    # Column t of the shifted matrix belongs to position t + 1; the last column has no edge.
    after = np.eye(length, k=-1)
    is_next = graph.add("MatMul", is_same, after)
    if options["edges"] == "binary":
        # Both ends of edge t are those of an edge before it.
        both = graph.add("Mul", is_same, graph.add("MatMul", np.eye(length, k=1), is_next))
        repeats = graph.add(
            "ReduceMax", graph.add("Mul", both, np.tril(np.ones((length, length)), -1)), [2], keepdims=1
        )
        is_first = graph.add("Transpose", graph.add("Sub", 1.0, repeats), perm=[0, 2, 1])
    else:
        is_first = graph.constant(np.ones((1, 1, length)))
    # The mask of the next position says where an edge begins.
    begins = graph.add("MatMul", graph.add("Transpose", session.mask_column, perm=[0, 2, 1]), after)
    counts = graph.add("Mul", begins, is_first)
    incoming = graph.add("Mul", is_next, counts)
    outgoing = graph.add("MatMul", graph.add("Mul", is_same, counts), np.eye(length, k=1))
    return _add_normalized(graph, incoming), _add_normalized(graph, outgoing)


def _add_normalized(graph: Graph, weights: str) -> str:
    total = graph.add("ReduceSum", weights, [2], keepdims=1)
    return graph.add("Div", weights, graph.add("Max", total, 1.0))


SHIPPED = ShippedBackbone(
    options={"steps": 1, "edges": "counted", "reset": "before"},
    shapes=shapes,
    encode=encode,
    graph=add_encoder,
    check=check,
    item_embeddings=input_embedding,
    max_length=max_length,
)
