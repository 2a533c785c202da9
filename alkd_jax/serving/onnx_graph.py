"""A student as an ONNX graph from the session's items to the best items: encoder, scores, exclusion and top k.

The formulas of the encoders are in :mod:`alkd_jax.serving.backbones`, operator by operator those in NumPy.
"""

import numpy as np

from alkd_jax.serving import numpy_encoders
from alkd_jax.serving.backbones import SHIPPED_BACKBONES, Arrays, Options
from alkd_jax.serving.backbones.graph import FLOAT, INT32, Graph, session_inputs

OPSET = 18
MAX_WEIGHT_BYTES = 1_900_000_000
"""The largest size of the weights; an ONNX file is limited to 2 GiB."""
MAX_FILE_BYTES = 2**31


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

    graph, shipped = Graph(arrays), SHIPPED_BACKBONES[backbone]
    vectors = shipped.graph(graph, options, session_inputs(graph, length))
    table = numpy_encoders.item_embeddings(backbone, options, arrays)
    is_tied = table is arrays["input_embedding"]
    weight = graph.weight("input_embedding") if is_tied else graph.weight("item_embeddings", table)
    products = graph.add("MatMul", vectors, graph.add("Transpose", weight, perm=[1, 0]))
    scores = _soft_maximum(graph, products) if shipped.has_item_vectors else products

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


def _soft_maximum(graph: Graph, products: str) -> str:
    """``log Σ_l exp(products_l)``, with the maximum subtracted before the exponential."""
    highest = graph.add("ReduceMax", products, [1], keepdims=1)
    total = graph.add("ReduceSum", graph.add("Exp", graph.add("Sub", products, highest)), [1], keepdims=0)
    return graph.add("Add", graph.add("Log", total), graph.add("Squeeze", highest, [1]))
