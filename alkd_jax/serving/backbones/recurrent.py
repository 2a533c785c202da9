"""The gated recurrent unit without JAX, see :mod:`alkd_jax.models.gru`."""

import numpy as np
from jaxtyping import Bool, Float

from alkd_jax.serving.backbones.graph import INT32, Graph, SessionInputs, add_last_row
from alkd_jax.serving.backbones.layers import sigmoid

RESETS = ("before", "after")


def step(
    x: Float[np.ndarray, "*batch G"],
    state: Float[np.ndarray, "*batch D"],
    kernel: Float[np.ndarray, "D G"],
    bias: Float[np.ndarray, " G"] | None = None,
    *,
    reset: str,
) -> Float[np.ndarray, "*batch D"]:
    """Returns the state after one step.

    Args:
        x: the inputs of reset gate, update gate and candidate state, side by side.
        state: the state before.
        kernel: of the state, for the same three.
        bias: added to the products with the state.
        reset: "before" or "after" the product with the kernel.
    """
    dim = kernel.shape[0]
    added = np.zeros(3 * dim, x.dtype) if bias is None else bias
    gates = sigmoid(x[..., : 2 * dim] + (state @ kernel[:, : 2 * dim] + added[: 2 * dim]))
    reset_gate, update_gate = gates[..., :dim], gates[..., dim:]
    if reset == "before":
        recurrent = (reset_gate * state) @ kernel[:, 2 * dim :] + added[2 * dim :]
    else:
        recurrent = reset_gate * (state @ kernel[:, 2 * dim :] + added[2 * dim :])
    candidate = np.tanh(x[..., 2 * dim :] + recurrent)
    return (1 - update_gate) * state + update_gate * candidate


def states(
    x: Float[np.ndarray, "B L G"],
    mask: Bool[np.ndarray, "B L"],
    kernel: Float[np.ndarray, "D G"],
    bias: Float[np.ndarray, " G"] | None = None,
    *,
    reset: str,
) -> Float[np.ndarray, "B L D"]:
    """Returns the state after each position, from a state of zeros; a position without an item changes nothing.

    Args:
        x: as of :func:`step`, for every position.
        mask: True on real items.
        kernel: as of :func:`step`.
        bias: as of :func:`step`.
        reset: as of :func:`step`.
    """
    state = np.zeros((len(x), kernel.shape[0]), x.dtype)
    found = np.empty((*x.shape[:2], kernel.shape[0]), x.dtype)
    for position in range(x.shape[1]):
        updated = step(x[:, position], state, kernel, bias, reset=reset)
        state = np.where(mask[:, position, None], updated, state)
        found[:, position] = state
    return found


def add_states(
    graph: Graph,
    session: SessionInputs,
    x: str,
    name: str,
    *,
    input_kernel: np.ndarray,
    kernel: np.ndarray,
    input_bias: np.ndarray | None = None,
    bias: np.ndarray | None = None,
    reset: str,
) -> tuple[str, str]:
    """Adds the recurrent unit to a graph.

    Args:
        graph: the graph.
        session: the session.
        x: name of the inputs ``[B, L, E]``.
        name: name of the unit, unique in the graph.
        input_kernel: ``[E, 3D]``, in the stored type.
        kernel: ``[D, 3D]``.
        input_bias: ``[3D]``.
        bias: ``[3D]``.
        reset: as of :func:`states`.

    Returns:
        The names of the states ``[B, L, D]``, 0 after the last item, and of the last state ``[B, D]``.
    """
    dim = kernel.shape[0]
    zeros = np.zeros(3 * dim, kernel.dtype)
    biases = [_onnx_blocks(zeros if part is None else part) for part in (input_bias, bias)]
    weights = {"W": _onnx_blocks(input_kernel), "R": _onnx_blocks(kernel), "B": np.concatenate(biases)}
    names = [graph.weight(f"{name}_{part}", np.ascontiguousarray(array.T)[None]) for part, array in weights.items()]
    # A session without items reads its first column, and its states are then set to 0.
    lengths = graph.add("Cast", graph.add("Squeeze", session.divisor, [1]), to=INT32)
    in_time = graph.add("Transpose", x, perm=[1, 0, 2])
    y = graph.add("GRU", in_time, *names, lengths, hidden_size=dim, linear_before_reset=int(reset == "after"))
    found = graph.add("Mul", graph.add("Transpose", graph.add("Squeeze", y, [1]), perm=[1, 0, 2]), session.mask_column)
    return found, add_last_row(graph, session, found)


def add_step(graph: Graph, x: str, state: str, kernel: str, *, dim: int, reset: str) -> str:
    """Adds one step without biases of a unit of this width, see :func:`step`."""

    def part(array: str, first: int, last: int, axis: int) -> str:
        return graph.add("Slice", array, [first * dim], [last * dim], [axis])

    products = graph.add("MatMul", state, part(kernel, 0, 2, 1))
    gates = graph.add("Sigmoid", graph.add("Add", part(x, 0, 2, -1), products))
    reset_gate, update_gate = part(gates, 0, 1, -1), part(gates, 1, 2, -1)
    candidate_kernel = part(kernel, 2, 3, 1)
    if reset == "before":
        recurrent = graph.add("MatMul", graph.add("Mul", reset_gate, state), candidate_kernel)
    else:
        recurrent = graph.add("Mul", reset_gate, graph.add("MatMul", state, candidate_kernel))
    candidate = graph.add("Tanh", graph.add("Add", part(x, 2, 3, -1), recurrent))
    return graph.add("Add", state, graph.add("Mul", update_gate, graph.add("Sub", candidate, state)))


def _onnx_blocks(array: np.ndarray) -> np.ndarray:
    """Returns blocks in ONNX's order: update gate, reset gate, candidate; its update gate weights the former state."""
    reset, update, candidate = np.split(array, 3, axis=-1)
    return np.concatenate([-update, reset, candidate], axis=-1)
