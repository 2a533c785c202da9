"""A student as an ONNX graph: items in, the best items out, with the encoder, the scores and the exclusion inside.

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
"""Element types, as the standard numbers them."""
LARGEST = 1_900_000_000
"""Bytes of weights; one file ends at 2 GiB."""


@dataclasses.dataclass(frozen=True)
class Graph:
    """An ONNX graph in the making; values go by name.

    Attributes:
        arrays: the student's parameters, as they are stored.
        nodes: operators so far.
        constants: arrays so far.
    """

    arrays: Mapping[str, np.ndarray]
    nodes: list[Any] = dataclasses.field(default_factory=list)
    constants: dict[str, Any] = dataclasses.field(default_factory=dict)

    def add(self, operator: str, *inputs: str | int | float | list[int] | np.ndarray, **attributes: Any) -> str:
        """Adds an operator and says what its result is called; numbers, and lists and arrays of them, are constants."""
        from onnx import helper

        names = [each if isinstance(each, str) else self.constant(each) for each in inputs]
        result = f"{operator}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, names, [result], **attributes))
        return result

    def constant(self, value: Any) -> str:
        """Adds an array: floating numbers in float32, whole ones in int64."""
        from onnx import numpy_helper

        array = np.asarray(value)
        array = array.astype(np.int64 if array.dtype.kind == "i" else np.float32)
        name = f"constant_{len(self.constants)}"
        self.constants[name] = numpy_helper.from_array(array, name)
        return name

    def weight(self, name: str, array: np.ndarray | None = None) -> str:
        """One of the parameters, in float32; or another array that is made of them, stored as they are."""
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

    def l2_normalise(self, x: str, axis: int) -> str:
        """``x / max(‖x‖, 1e-12)``."""
        square = self.add("ReduceSum", self.add("Mul", x, x), [axis], keepdims=1)
        return self.add("Div", x, self.add("Max", self.add("Sqrt", square), numpy_encoders.SMALLEST_NORM))


@dataclasses.dataclass(frozen=True)
class Read:
    """What every encoder starts from, by name in the graph.

    Attributes:
        items: ``[B, L]``.
        mask: ``[B, L]`` bool.
        real: ``[B, L, 1]``, 1 on real items.
        size: ``[B, 1]``, how many items are real.
        count: likewise, at least 1.
        gathered: ``[B, L, D]``, input embeddings, the padding's too.
        x: ``[B, L, D]``, those of real items, else 0.
        length: L.
    """

    items: str
    mask: str
    real: str
    size: str
    count: str
    gathered: str
    x: str
    length: int


def student(backbone: str, options: Options, arrays: Arrays, *, length: int, list_length: int) -> bytes:
    """Returns an ONNX file, checked.

    Its inputs are ``items`` ``[batch, L]`` int32, left-aligned, 0 after the last, and ``exclude`` ``[batch, excluded]``
    int32, 0 harmless. Its outputs are ``scores`` ``[batch, K]``, best first, ties to the lower number, and ``ids``
    ``[batch, K]`` int32; −inf and −1 where fewer remain.

    Args:
        backbone: one of `numpy_encoders.OPTIONS`.
        options: all of that backbone's.
        arrays: its parameters, float32 or float16; computed with in float32.
        length: L.
        list_length: K, at most the catalogue.
    """
    import onnx
    from onnx import helper

    graph = Graph(arrays)
    vectors = _ENCODERS[backbone](graph, options, _read(graph, length))
    shared = options.get("variant") == "original"
    table = None if shared else numpy_encoders.item_embeddings(backbone, options, arrays)
    weight = graph.weight("input_embedding") if shared else graph.weight("item_embeddings", table)
    products = graph.add("MatMul", vectors, graph.add("Transpose", weight, perm=[1, 0]))
    scores = _soft_maximum(graph, products) if backbone == "late" else products

    first = graph.add("Slice", "items", [0], [1], [1])
    # The padding is left out with the rest: one column of its number, 0.
    exclude = graph.add("Concat", graph.add("Sub", first, first), "exclude", axis=1)
    nothing = graph.add("Expand", -np.inf, graph.add("Shape", exclude))
    scores = graph.add("ScatterElements", scores, exclude, nothing, axis=1)
    graph.nodes.append(helper.make_node("TopK", [scores, graph.constant([list_length])], ["scores", "places"], axis=1))
    absent = graph.add("IsInf", "scores", detect_positive=0)
    number = graph.add("Where", absent, -1, "places")
    graph.nodes.append(helper.make_node("Cast", [number], ["ids"], to=INT32))
    inputs = [
        helper.make_tensor_value_info("items", INT32, ["batch", length]),
        helper.make_tensor_value_info("exclude", INT32, ["batch", "excluded"]),
    ]
    outputs = [
        helper.make_tensor_value_info("scores", FLOAT, ["batch", list_length]),
        helper.make_tensor_value_info("ids", INT32, ["batch", list_length]),
    ]
    made = helper.make_graph(graph.nodes, f"alkd_jax {backbone}", inputs, outputs, list(graph.constants.values()))
    opset = [helper.make_opsetid("", OPSET)]
    model = helper.make_model_gen_version(made, opset_imports=opset, producer_name="alkd_jax")
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def _read(graph: Graph, length: int) -> Read:
    mask = graph.add("Cast", "items", to=BOOL)
    flat = graph.add("Cast", mask, to=FLOAT)
    real = graph.add("Unsqueeze", flat, [2])
    size = graph.add("ReduceSum", flat, [1], keepdims=1)
    gathered = graph.add("Gather", graph.weight("input_embedding"), "items", axis=0)
    x = graph.add("Mul", gathered, real)
    return Read("items", mask, real, size, graph.add("Max", size, 1.0), gathered, x, length)


def _fpmc(graph: Graph, options: Options, read: Read) -> str:
    return graph.add("Div", graph.add("ReduceSum", read.x, [1], keepdims=0), read.count)


def _stamp(graph: Graph, options: Options, read: Read) -> str:
    seen = read.gathered if options["sum_padding"] else read.x
    mean = graph.add("Div", graph.add("ReduceSum", seen, [1], keepdims=0), read.count)
    place = graph.add("Max", graph.add("Sub", read.size, 1.0), 0.0)
    is_last = graph.add("Cast", graph.add("Equal", place, np.arange(read.length)[None] * 1.0), to=FLOAT)
    picked = graph.add("Mul", seen, graph.add("Unsqueeze", is_last, [2]))
    last = graph.add("ReduceSum", picked, [1], keepdims=0)

    def product(x: str, part: str) -> str:
        return graph.add("MatMul", x, graph.weight(f"attention_{part}_kernel"))

    steering = graph.add("Add", product(last, "last"), product(mean, "mean"))
    steering = graph.add("Add", steering, graph.weight("attention_bias"))
    hidden = graph.add("Add", product(read.x, "item"), graph.add("Unsqueeze", steering, [1]))
    energy = product(graph.add("Sigmoid", hidden), "out")
    vector = graph.add("Add", graph.add("ReduceSum", graph.add("Mul", energy, read.x), [1], keepdims=0), mean)
    if options["variant"] == "original":
        long = graph.add("Tanh", graph.affine(vector, "session"))
        vector = graph.add("Mul", long, graph.add("Tanh", graph.affine(last, "last")))
    return vector


def _attmix(graph: Graph, options: Options, read: Read) -> str:
    levels, heads = options["levels"], options["heads"]
    dim = graph.arrays["item_key_kernel"].shape[1]
    part = dim // heads
    x = graph.l2_normalise(read.x, -1)
    # Place of the i-th last item; below 0 where there is none, which then equals no place.
    place = graph.add("Sub", read.size, np.arange(1, levels + 1)[None] * 1.0)
    picks = graph.add("Equal", graph.add("Unsqueeze", place, [2]), np.arange(read.length)[None, None] * 1.0)
    recent = graph.add("MatMul", graph.add("Cast", picks, to=FLOAT), x)
    flat = graph.add("Reshape", recent, [-1, levels * dim])
    queries = []
    for i in range(1, levels + 1):
        last_i = graph.add("Slice", flat, [0], [i * dim], [1])
        queries.append(graph.add("Unsqueeze", graph.affine(last_i, f"level_{i}"), [1]))
    query = graph.l2_normalise(graph.add("Concat", *queries, axis=1), 1)

    query = graph.add("Reshape", graph.affine(query, "level_query"), [-1, heads, levels, part])
    key = graph.add("Reshape", graph.affine(x, "item_key"), [-1, heads, read.length, part])
    energy = graph.add("MatMul", query, graph.add("Transpose", key, perm=[0, 1, 3, 2]))
    weight = graph.add("Softmax", graph.add("Mul", graph.add("Sigmoid", energy), 2.0), axis=-1)
    weight = graph.add("Mul", graph.add("ReduceSum", weight, [2], keepdims=0), 2.0)
    mask = graph.add("Unsqueeze", read.mask, [1])
    weight = graph.add("Softmax", graph.add("Where", mask, weight, -1e30), axis=-1)
    weight = graph.add("Mul", weight, graph.add("Cast", mask, to=FLOAT))
    value = graph.add("Reshape", graph.affine(x, "item_value"), [-1, read.length, heads, part])
    value = graph.add("Transpose", value, perm=[0, 2, 1, 3])
    attended = graph.add("MatMul", graph.add("Unsqueeze", weight, [2]), value)
    attended = graph.add("Reshape", attended, [-1, dim])

    centred = graph.add("Sub", attended, graph.add("ReduceMean", attended, [-1], keepdims=1))
    variance = graph.add("ReduceMean", graph.add("Mul", centred, centred), [-1], keepdims=1)
    deviation = graph.add("Sqrt", graph.add("Add", variance, numpy_encoders.LAYER_NORM_EPSILON))
    normal = graph.add("Mul", graph.add("Div", centred, deviation), graph.weight("layer_norm_scale"))
    normal = graph.add("Add", normal, graph.weight("layer_norm_bias"))
    both = graph.add("Concat", normal, graph.add("Gather", recent, 0, axis=1), axis=-1)
    return graph.l2_normalise(graph.affine(both, "merge"), -1)


def _late(graph: Graph, options: Options, read: Read) -> str:
    x = read.x
    if options["shared"]:
        own = graph.add("Gather", graph.weight("output_embedding"), read.items, axis=0)
        both = graph.add("Concat", read.gathered, own, axis=-1)
        x = graph.add("Mul", graph.add("MatMul", both, graph.weight("meeting_kernel")), read.real)
    steps_to_end = graph.add("Sub", graph.add("Sub", read.size, 1.0), np.arange(read.length)[None] * 1.0)
    bias = graph.add("Gather", graph.weight("input_bias"), read.items, axis=0)
    bias = graph.add("Add", bias, graph.add("Mul", steps_to_end, float(np.log(options["recency"]))))
    bias = graph.add("Unsqueeze", graph.add("Where", read.mask, bias, numpy_encoders.ABSENT), [2])
    ones = graph.add("Add", graph.add("Mul", read.real, 0.0), 1.0)
    return graph.add("Concat", x, bias, ones, axis=-1)


def _soft_maximum(graph: Graph, products: str) -> str:
    """``log Σ_l exp(products)``, the largest taken out first."""
    highest = graph.add("ReduceMax", products, [1], keepdims=1)
    total = graph.add("ReduceSum", graph.add("Exp", graph.add("Sub", products, highest)), [1], keepdims=0)
    return graph.add("Add", graph.add("Log", total), graph.add("Squeeze", highest, [1]))


_ENCODERS: Mapping[str, Callable[[Graph, Options, Read], str]] = {
    "fpmc": _fpmc,
    "stamp": _stamp,
    "attmix": _attmix,
    "late": _late,
}
