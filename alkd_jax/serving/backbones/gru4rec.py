"""GRU4Rec without JAX, see :mod:`alkd_jax.models.gru4rec`."""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from alkd_jax.serving.backbones import recurrent
from alkd_jax.serving.backbones.graph import Graph, SessionInputs
from alkd_jax.serving.backbones.options import check_choice, check_range
from alkd_jax.serving.backbones.shipped_backbone import Arrays, Options, ShippedBackbone

_EMBEDDINGS = ("constrained", "separate", "none")
_MAX_LAYERS = 100


def check(options: Options, dim: int) -> None:
    """Refuses options that are out of range."""
    check_choice("gru4rec", options, "embedding", _EMBEDDINGS)
    check_range("gru4rec", options, "layers", _MAX_LAYERS)


def width(options: Options, table_width: int) -> int:
    """Returns D; without an embedding the input table is three times as wide."""
    return table_width // 3 if options["embedding"] == "none" else table_width


def shapes(options: Options, num_items: int, dim: int) -> dict[str, tuple[int, ...]]:
    """Returns parameter name → shape."""
    rows, embedding = num_items + 1, options["embedding"]
    found: dict[str, tuple[int, ...]] = {"input_embedding": (rows, 3 * dim if embedding == "none" else dim)}
    if embedding != "constrained":
        found["output_embedding"] = (rows, dim)
    found["output_bias"] = (rows,)
    for number in range(1, options["layers"] + 1):
        found |= {f"unit_{number}_hidden_kernel": (dim, 3 * dim), f"unit_{number}_input_bias": (3 * dim,)}
        if number > 1 or embedding != "none":
            found |= {f"unit_{number}_input_kernel": (dim, 3 * dim), f"unit_{number}_hidden_bias": (3 * dim,)}
    return found


def item_embeddings(options: Options, arrays: Arrays) -> Float[np.ndarray, "V E"]:
    """Returns the table that scores items, ``[Y, b]``."""
    table = arrays["input_embedding" if options["embedding"] == "constrained" else "output_embedding"]
    return np.concatenate([table, arrays["output_bias"][:, None]], axis=1)


def encode(
    options: Options, arrays: Arrays, items: Int[np.ndarray, "B L"], mask: Bool[np.ndarray, "B L"], length: int
) -> Float[np.ndarray, "B E"]:
    """Returns the session vectors."""
    x = arrays["input_embedding"][items]
    for number in range(1, options["layers"] + 1):
        unit = _unit(arrays, number)
        gates = x if unit["input_kernel"] is None else x @ unit["input_kernel"]
        reset = "before" if unit["input_kernel"] is None else "after"
        x = recurrent.states(gates + unit["input_bias"], mask, unit["kernel"], unit["bias"], reset=reset)
    last = x[:, -1]
    return np.concatenate([last, np.ones_like(last[:, :1])], axis=1)


def _unit(arrays: Arrays, number: int) -> dict[str, Any]:
    """Returns the arrays of a unit, None for those that it does not have."""
    names = {
        "input_kernel": "input_kernel",
        "kernel": "hidden_kernel",
        "input_bias": "input_bias",
        "bias": "hidden_bias",
    }
    return {name: arrays.get(f"unit_{number}_{stored}") for name, stored in names.items()}


def add_encoder(graph: Graph, options: Options, session: SessionInputs) -> str:
    """Adds the encoder and returns the name of the session vectors."""
    x = last = session.x
    for number in range(1, options["layers"] + 1):
        unit = _unit(graph.arrays, number)
        reset = "before" if unit["input_kernel"] is None else "after"
        if unit["input_kernel"] is None:
            # ONNX has no unit without an input kernel.
            unit["input_kernel"] = np.eye(len(unit["input_bias"]), dtype=unit["input_bias"].dtype)
        x, last = recurrent.add_states(graph, session, x, f"unit_{number}", reset=reset, **unit)
    one = graph.add("Add", graph.add("Mul", session.num_real, 0.0), 1.0)
    return graph.add("Concat", last, one, axis=1)


SHIPPED = ShippedBackbone(
    options={"embedding": "constrained", "layers": 1},
    shapes=shapes,
    encode=encode,
    graph=add_encoder,
    check=check,
    item_embeddings=item_embeddings,
    width=width,
)
