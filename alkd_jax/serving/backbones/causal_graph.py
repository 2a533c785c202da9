"""SASRec, gSASRec, eSASRec and HSTU as ONNX operators, with the formulas of `causal`."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from alkd_jax.serving.backbones.graph import Graph, SessionInputs, add_last_row


@dataclasses.dataclass(frozen=True)
class Block:
    """What the operators of a block read.

    Attributes:
        graph: the graph.
        options: of the backbone.
        prefix: of the names of the block's parameters.
        length: L.
        dim: D.
    """

    graph: Graph
    options: Mapping[str, Any]
    prefix: str
    length: int
    dim: int

    def weight(self, name: str) -> str:
        """Returns the name of a parameter of the block."""
        return self.graph.weight(f"{self.prefix}{name}")

    def project(self, x: str, name: str) -> str:
        """``x W + b``, or ``x W`` where there is no bias."""
        product = self.graph.add("MatMul", x, self.weight(f"{name}_kernel"))
        has_bias = f"{self.prefix}{name}_bias" in self.graph.arrays
        return self.graph.add("Add", product, self.weight(f"{name}_bias")) if has_bias else product

    def normalize(self, x: str, name: str | None = None) -> str:
        """Layer normalization, with scale and bias where it has a name."""
        return self.graph.layer_norm(x, name and f"{self.prefix}{name}")

    def silu(self, x: str) -> str:
        """``x σ(x)``."""
        return self.graph.add("Mul", x, self.graph.add("Sigmoid", x))

    def heads(self, x: str) -> str:
        """Splits the width into heads, ``[B, H, L, P]``."""
        heads = self.options["heads"]
        split = self.graph.add("Reshape", x, [-1, self.length, heads, self.dim // heads])
        return self.graph.add("Transpose", split, perm=[0, 2, 1, 3])

    def joined(self, x: str) -> str:
        """Joins the heads, the inverse of :meth:`heads`."""
        swapped = self.graph.add("Transpose", x, perm=[0, 2, 1, 3])
        return self.graph.add("Reshape", swapped, [-1, self.length, self.dim])

    def products(self, query: str, key: str) -> str:
        """``q_l · k_m`` in every head."""
        return self.graph.add("MatMul", query, self.graph.add("Transpose", key, perm=[0, 1, 3, 2]))

    def attention(self, normalized: str, source: str) -> str:
        """Multi-head softmax attention."""
        names = {"query": normalized, "key": source, "value": source}
        query, key, value = (self.heads(self.project(x, name)) for name, x in names.items())
        scale = float((self.dim // self.options["heads"]) ** -0.5)
        energy = self.graph.add("Mul", self.products(query, key), scale)
        hidden = np.triu(np.full((self.length, self.length), -1e30), 1)
        weight = self.graph.add("Softmax", self.graph.add("Add", energy, hidden), axis=-1)
        return self.joined(self.graph.add("MatMul", weight, value))


def add_encoder(graph: Graph, options: Mapping[str, Any], session: SessionInputs, *, backbone: str) -> str:
    """Adds the encoder and returns the name of the session vectors."""
    dim, length = graph.arrays["input_embedding"].shape[1], session.length
    x = graph.add("Mul", session.x, float(dim**0.5)) if options["scaled"] else session.x
    rows = graph.weight("used_positions", graph.arrays["positions"][:length])
    x = graph.add("Add", x, rows)
    block = {"hstu": _hstu, "esasrec": _esasrec}.get(backbone, _sasrec)
    for number in range(1, options["blocks"] + 1):
        x = block(Block(graph, options, f"block_{number}_", length, dim), x)
    last = add_last_row(graph, session, x)
    if backbone == "hstu":
        vectors = graph.add("Div", graph.l2_normalize(last, -1), float(options["temperature"]))
    else:
        vectors = graph.layer_norm(last, "output_norm")
    return graph.add("Mul", vectors, graph.add("Min", session.num_real, 1.0))


def _sasrec(block: Block, x: str) -> str:
    add = block.graph.add
    normalized = block.normalize(x, "attention_norm")
    is_original = block.options["variant"] == "original"
    attended = block.attention(normalized, x if is_original else normalized)
    if is_original:
        residual = inner = block.normalize(add("Add", normalized, attended), "forward_norm")
    else:
        residual = add("Add", x, block.project(attended, "attention_out"))
        inner = block.normalize(residual, "forward_norm")
    return add("Add", residual, block.project(add("Relu", block.project(inner, "inner")), "outer"))


def _esasrec(block: Block, x: str) -> str:
    add = block.graph.add
    normalized = block.normalize(x, "attention_norm")
    attended = block.project(block.attention(normalized, normalized), "attention_out")
    x = add("Add", x, add("Mul", add("Sigmoid", block.project(x, "attention_gate")), attended))
    inner = block.normalize(x, "forward_norm")
    hidden = add("Mul", block.silu(block.project(inner, "gate")), block.project(inner, "inner"))
    gate = add("Sigmoid", block.project(x, "forward_gate"))
    return add("Add", x, add("Mul", gate, block.project(hidden, "outer")))


def _hstu(block: Block, x: str) -> str:
    add, dim, length = block.graph.add, block.dim, block.length
    joint = block.silu(block.project(block.normalize(x), "joint"))
    parts = [add("Slice", joint, [n * dim], [(n + 1) * dim], [2]) for n in range(4)]
    value, query, key = (block.heads(part) for part in parts[1:])
    position = np.arange(length)
    distance = np.maximum(position[:, None] - position, 0)
    name = f"{block.prefix}relative_bias"
    bias = block.graph.weight(f"{name}_of_pairs", block.graph.arrays[name][distance])
    divisor = position[:, None] + 1 if block.options["divisor"] == "length" else block.options["max_length"]
    share = np.tril(np.ones((length, length))) / divisor
    weight = add("Mul", block.silu(add("Add", block.products(query, key), bias)), share)
    attended = block.joined(add("MatMul", weight, value))
    return add("Add", x, block.project(add("Mul", block.normalize(attended), parts[0]), "outer"))
