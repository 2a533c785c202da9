"""What serving knows of a backbone: its options and parameters, its forward pass in NumPy and as ONNX operators."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Int

from alkd_jax.serving.backbones.graph import Graph, SessionInputs

Arrays: TypeAlias = Mapping[str, Float[np.ndarray, "..."]]
Options: TypeAlias = Mapping[str, Any]
Encode: TypeAlias = Callable[
    [Options, Arrays, Int[np.ndarray, "B L"], Bool[np.ndarray, "B L"], int], Float[np.ndarray, "B *L D"]
]
"""``encode(options, arrays, items, mask, length)`` returns session vectors."""

MAX_LENGTH = 2**16
"""The largest number of items L that a student may read."""


def _no_check(options: Options, dim: int) -> None:
    """Refuses nothing."""


def _output_embedding(options: Options, arrays: Arrays) -> Float[np.ndarray, "V D"]:
    return arrays["output_embedding"]


def input_embedding(options: Options, arrays: Arrays) -> Float[np.ndarray, "V D"]:
    """Returns the input table, for a backbone whose items are scored by it."""
    return arrays["input_embedding"]


def _any_length(options: Options, dim: int) -> int:
    return MAX_LENGTH


def _table_width(options: Options, table_width: int) -> int:
    return table_width


@dataclasses.dataclass(frozen=True)
class ShippedBackbone:
    """A backbone without JAX: formulas and parameter names of :mod:`alkd_jax.models`, in float32.

    Attributes:
        options: the options that affect a trained model, with their defaults.
        shapes: ``shapes(options, num_items, dim)`` returns parameter name → shape; one is "input_embedding".
        encode: the forward pass, see :data:`Encode`.
        graph: ``graph(graph, options, session)`` adds the same forward pass to an ONNX graph and returns the name of
            the session vectors.
        check: ``check(options, dim)`` raises ValueError where an option is out of range.
        item_embeddings: ``item_embeddings(options, arrays)`` returns the table Y; by default the output table.
        max_length: ``max_length(options, dim)`` returns the largest L with which an answer takes bounded memory.
        width: ``width(options, table_width)`` returns the width D of a backbone, given that of its input table.
        reads_all_columns: whether the vectors depend on columns without an item.
        has_item_vectors: whether a session has a vector for each item, whose scores are pooled.
    """

    options: Options
    shapes: Callable[[Options, int, int], dict[str, tuple[int, ...]]]
    encode: Encode
    graph: Callable[[Graph, Options, SessionInputs], str]
    check: Callable[[Options, int], None] = _no_check
    item_embeddings: Callable[[Options, Arrays], Float[np.ndarray, "V D"]] = _output_embedding
    max_length: Callable[[Options, int], int] = _any_length
    width: Callable[[Options, int], int] = _table_width
    reads_all_columns: bool = False
    has_item_vectors: bool = False
