"""FPMC without JAX, see :mod:`alkd_jax.models.fpmc`."""

import numpy as np
from jaxtyping import Bool, Float, Int

from alkd_jax.serving.backbones.graph import Graph, SessionInputs
from alkd_jax.serving.backbones.layers import num_real_items
from alkd_jax.serving.backbones.shipped_backbone import Arrays, Options, ShippedBackbone


def shapes(options: Options, num_items: int, dim: int) -> dict[str, tuple[int, ...]]:
    """Returns parameter name → shape."""
    return {"input_embedding": (num_items + 1, dim), "output_embedding": (num_items + 1, dim)}


def encode(
    options: Options, arrays: Arrays, items: Int[np.ndarray, "B L"], mask: Bool[np.ndarray, "B L"], length: int
) -> Float[np.ndarray, "B D"]:
    """Returns the session vectors."""
    x = arrays["input_embedding"][items] * mask[..., None]
    return x.sum(1) / num_real_items(mask)


def add_encoder(graph: Graph, options: Options, session: SessionInputs) -> str:
    """Adds the encoder and returns the name of the session vectors."""
    return graph.add("Div", graph.add("ReduceSum", session.x, [1], keepdims=0), session.divisor)


SHIPPED = ShippedBackbone(options={}, shapes=shapes, encode=encode, graph=add_encoder)
