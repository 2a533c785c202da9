"""A builder of ONNX graphs, and the inputs that the encoders of all backbones read."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from alkd_jax.serving.backbones import layers

FLOAT, INT32, BOOL = 1, 6, 9
"""Element types, with their numbers in the ONNX standard."""


@dataclasses.dataclass(frozen=True)
class Graph:
    """A builder of an ONNX graph, in which values are identified by their names.

    Attributes:
        arrays: parameter name → array, in its stored type.
        nodes: the operators.
        constants: name → constant array.
    """

    arrays: Mapping[str, np.ndarray]
    nodes: list[Any] = dataclasses.field(default_factory=list)
    constants: dict[str, Any] = dataclasses.field(default_factory=dict)

    def add(self, operator: str, *inputs: str | int | float | list[int] | np.ndarray, **attributes: Any) -> str:
        """Adds an operator and returns the name of its result; inputs that are not names become constants."""
        from onnx import helper

        names = [value if isinstance(value, str) else self.constant(value) for value in inputs]
        result = f"{operator}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, names, [result], **attributes))
        return result

    def constant(self, value: Any) -> str:
        """Adds a constant array, float32 or int64, and returns its name."""
        from onnx import numpy_helper

        array = np.asarray(value)
        array = array.astype(np.int64 if array.dtype.kind == "i" else np.float32)
        name = f"constant_{len(self.constants)}"
        self.constants[name] = numpy_helper.from_array(array, name)
        return name

    def weight(self, name: str, array: np.ndarray | None = None) -> str:
        """Returns the name of a parameter, or of an array derived from parameters, converted to float32.

        Args:
            name: name of the parameter or of the derived array.
            array: the derived array, in the stored type of the parameters.
        """
        from onnx import numpy_helper

        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(self.arrays[name] if array is None else array, name)
        if self.arrays["input_embedding"].dtype == np.float32:
            return name
        return self.add("Cast", name, to=FLOAT)

    def affine(self, x: str, name: str) -> str:
        """``x W + b``."""
        product = self.add("MatMul", x, self.weight(f"{name}_kernel"))
        return self.add("Add", product, self.weight(f"{name}_bias"))

    def layer_norm(self, x: str, name: str | None = None, *, epsilon: float = layers.LAYER_NORM_EPSILON) -> str:
        """``(x − mean) / √(var + ε)`` over the last axis, with the scale and the bias of a name where one is given."""
        centered = self.add("Sub", x, self.add("ReduceMean", x, [-1], keepdims=1))
        variance = self.add("ReduceMean", self.add("Mul", centered, centered), [-1], keepdims=1)
        normalized = self.add("Div", centered, self.add("Sqrt", self.add("Add", variance, epsilon)))
        if name is None:
            return normalized
        scaled = self.add("Mul", normalized, self.weight(f"{name}_scale"))
        return self.add("Add", scaled, self.weight(f"{name}_bias"))

    def l2_normalize(self, x: str, axis: int) -> str:
        """``x / max(‖x‖, 1e-12)``."""
        square = self.add("ReduceSum", self.add("Mul", x, x), [axis], keepdims=1)
        return self.add("Div", x, self.add("Max", self.add("Sqrt", square), layers.MIN_NORM))


@dataclasses.dataclass(frozen=True)
class SessionInputs:
    """The inputs of all encoders, by their names in the graph.

    Attributes:
        items: ``[B, L]`` int32.
        mask: ``[B, L]`` bool.
        mask_column: ``[B, L, 1]`` float32, 1 on real items.
        num_real: ``[B, 1]`` float32, number of real items.
        divisor: ``[B, 1]``, the same, at least 1.
        embeddings: ``[B, L, D]`` input embeddings, also of the padding.
        x: ``[B, L, D]`` input embeddings of real items, 0 elsewhere.
        length: L.
    """

    items: str
    mask: str
    mask_column: str
    num_real: str
    divisor: str
    embeddings: str
    x: str
    length: int


def session_inputs(graph: Graph, length: int) -> SessionInputs:
    """Adds what all encoders read of the graph's input ``items``, ``[batch, L]``."""
    mask = graph.add("Cast", "items", to=BOOL)
    flat = graph.add("Cast", mask, to=FLOAT)
    mask_column = graph.add("Unsqueeze", flat, [2])
    num_real = graph.add("ReduceSum", flat, [1], keepdims=1)
    embeddings = graph.add("Gather", graph.weight("input_embedding"), "items", axis=0)
    x = graph.add("Mul", embeddings, mask_column)
    divisor = graph.add("Max", num_real, 1.0)
    return SessionInputs("items", mask, mask_column, num_real, divisor, embeddings, x, length)


def add_last_row(graph: Graph, session: SessionInputs, rows: str) -> str:
    """Adds the row of each session's last item.

    Args:
        graph: the graph.
        session: the session.
        rows: name of ``[B, L, D]``.

    Returns:
        The name of ``[B, D]``; of a session without items it is the first row.
    """
    is_last = graph.add("Equal", session.divisor, np.arange(1, session.length + 1)[None] * 1.0)
    column = graph.add("Unsqueeze", graph.add("Cast", is_last, to=FLOAT), [2])
    return graph.add("ReduceSum", graph.add("Mul", rows, column), [1], keepdims=0)
