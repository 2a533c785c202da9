"""A student as an ONNX graph from the session's items to the best items: encoder, scores, exclusion and top k.

The formulas are those of `numpy_encoders`, operator by operator.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from alkd_jax.serving import numpy_encoders
from alkd_jax.serving.numpy_encoders import Arrays, Options

OPSET = 18
FLOAT, INT32, BOOL = 1, 6, 9
"""Element types, with their numbers in the ONNX standard."""
MAX_WEIGHT_BYTES = 1_900_000_000
"""The largest size of the weights; an ONNX file is limited to 2 GiB."""
MAX_FILE_BYTES = 2**31


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

    def l2_normalize(self, x: str, axis: int) -> str:
        """``x / max(‖x‖, 1e-12)``."""
        square = self.add("ReduceSum", self.add("Mul", x, x), [axis], keepdims=1)
        return self.add("Div", x, self.add("Max", self.add("Sqrt", square), numpy_encoders.MIN_NORM))


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


def student_graph(backbone: str, options: Options, arrays: Arrays, *, length: int, list_length: int) -> bytes:
    """Returns the content of an ONNX file, after ONNX's own check.

    Its inputs are ``items`` ``[batch, L]`` int32, left-aligned, 0 after the last, and ``exclude`` ``[batch, excluded]``
    int32, in which 0 and negative numbers have no effect. Its outputs are ``scores`` ``[batch, K]``, best first, ties
    to the lower item number, and ``ids`` ``[batch, K]`` int32; −inf and −1 where fewer items remain.

    Args:
        backbone: one of `numpy_encoders.OPTIONS`.
        options: all options of that backbone.
        arrays: its parameters, float32 or float16; computation is in float32.
        length: L.
        list_length: K, at most the number of items.
    """
    import onnx
    from onnx import helper

    graph = Graph(arrays)
    vectors = _ENCODERS[backbone](graph, options, _session_inputs(graph, length))
    shared = options.get("variant") == "original"
    table = None if shared else numpy_encoders.item_embeddings(backbone, options, arrays)
    weight = graph.weight("input_embedding") if shared else graph.weight("item_embeddings", table)
    products = graph.add("MatMul", vectors, graph.add("Transpose", weight, perm=[1, 0]))
    scores = _soft_maximum(graph, products) if backbone == "late" else products

    first_column = graph.add("Slice", "items", [0], [1], [1])
    # A column of zeros excludes the padding too.
    exclude = graph.add("Concat", graph.add("Sub", first_column, first_column), graph.add("Relu", "exclude"), axis=1)
    minus_infinity = graph.add("Expand", -np.inf, graph.add("Shape", exclude))
    scores = graph.add("ScatterElements", scores, exclude, minus_infinity, axis=1)
    k = graph.constant([list_length])
    graph.nodes.append(helper.make_node("TopK", [scores, k], ["scores", "positions"], axis=1))
    is_missing = graph.add("IsInf", "scores", detect_positive=0)
    ids = graph.add("Where", is_missing, -1, "positions")
    graph.nodes.append(helper.make_node("Cast", [ids], ["ids"], to=INT32))
    inputs = [
        helper.make_tensor_value_info("items", INT32, ["batch", length]),
        helper.make_tensor_value_info("exclude", INT32, ["batch", "excluded"]),
    ]
    outputs = [
        helper.make_tensor_value_info("scores", FLOAT, ["batch", list_length]),
        helper.make_tensor_value_info("ids", INT32, ["batch", list_length]),
    ]
    onnx_graph = helper.make_graph(graph.nodes, f"alkd_jax {backbone}", inputs, outputs, list(graph.constants.values()))
    opset = [helper.make_opsetid("", OPSET)]
    model = helper.make_model_gen_version(onnx_graph, opset_imports=opset, producer_name="alkd_jax")
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def _session_inputs(graph: Graph, length: int) -> SessionInputs:
    mask = graph.add("Cast", "items", to=BOOL)
    flat = graph.add("Cast", mask, to=FLOAT)
    mask_column = graph.add("Unsqueeze", flat, [2])
    num_real = graph.add("ReduceSum", flat, [1], keepdims=1)
    embeddings = graph.add("Gather", graph.weight("input_embedding"), "items", axis=0)
    x = graph.add("Mul", embeddings, mask_column)
    divisor = graph.add("Max", num_real, 1.0)
    return SessionInputs("items", mask, mask_column, num_real, divisor, embeddings, x, length)


def _fpmc(graph: Graph, options: Options, session: SessionInputs) -> str:
    return graph.add("Div", graph.add("ReduceSum", session.x, [1], keepdims=0), session.divisor)


def _stamp(graph: Graph, options: Options, session: SessionInputs) -> str:
    summed = session.embeddings if options["sum_padding"] else session.x
    mean = graph.add("Div", graph.add("ReduceSum", summed, [1], keepdims=0), session.divisor)
    position = graph.add("Max", graph.add("Sub", session.num_real, 1.0), 0.0)
    is_last = graph.add("Cast", graph.add("Equal", position, np.arange(session.length)[None] * 1.0), to=FLOAT)
    last_rows = graph.add("Mul", summed, graph.add("Unsqueeze", is_last, [2]))
    last = graph.add("ReduceSum", last_rows, [1], keepdims=0)

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


def _attmix(graph: Graph, options: Options, session: SessionInputs) -> str:
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

    centered = graph.add("Sub", attended, graph.add("ReduceMean", attended, [-1], keepdims=1))
    variance = graph.add("ReduceMean", graph.add("Mul", centered, centered), [-1], keepdims=1)
    deviation = graph.add("Sqrt", graph.add("Add", variance, numpy_encoders.LAYER_NORM_EPSILON))
    normalized = graph.add("Mul", graph.add("Div", centered, deviation), graph.weight("layer_norm_scale"))
    normalized = graph.add("Add", normalized, graph.weight("layer_norm_bias"))
    pairs = graph.add("Concat", normalized, graph.add("Gather", recent, 0, axis=1), axis=-1)
    return graph.l2_normalize(graph.affine(pairs, "merge"), -1)


def _late(graph: Graph, options: Options, session: SessionInputs) -> str:
    x = session.x
    if options["shared"]:
        output_rows = graph.add("Gather", graph.weight("output_embedding"), session.items, axis=0)
        pairs = graph.add("Concat", session.embeddings, output_rows, axis=-1)
        x = graph.add("Mul", graph.add("MatMul", pairs, graph.weight("interaction_kernel")), session.mask_column)
    steps_to_end = graph.add("Sub", graph.add("Sub", session.num_real, 1.0), np.arange(session.length)[None] * 1.0)
    bias = graph.add("Gather", graph.weight("input_bias"), session.items, axis=0)
    bias = graph.add("Add", bias, graph.add("Mul", steps_to_end, float(np.log(options["recency"]))))
    bias = graph.add("Unsqueeze", graph.add("Where", session.mask, bias, numpy_encoders.MASKED_SCORE), [2])
    ones = graph.add("Add", graph.add("Mul", session.mask_column, 0.0), 1.0)
    return graph.add("Concat", x, bias, ones, axis=-1)


def _soft_maximum(graph: Graph, products: str) -> str:
    """``log Σ_l exp(products_l)``, with the maximum subtracted before the exponential."""
    highest = graph.add("ReduceMax", products, [1], keepdims=1)
    total = graph.add("ReduceSum", graph.add("Exp", graph.add("Sub", products, highest)), [1], keepdims=0)
    return graph.add("Add", graph.add("Log", total), graph.add("Squeeze", highest, [1]))


_ENCODERS: Mapping[str, Callable[[Graph, Options, SessionInputs], str]] = {
    "fpmc": _fpmc,
    "stamp": _stamp,
    "attmix": _attmix,
    "late": _late,
}
