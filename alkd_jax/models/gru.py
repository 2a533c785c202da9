"""The gated recurrent unit: one step, and the states of whole sessions."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

RESETS = ("before", "after")
"""Whether the reset gate multiplies the state before or after the product with its kernel."""


def gru_step(
    x: Float[Array, "B G"],
    state: Float[Array, "B D"],
    kernel: Float[Array, "D G"],
    bias: Float[Array, " G"] | None = None,
    *,
    reset: str = "before",
) -> Float[Array, "B D"]:
    """One step of a gated recurrent unit of width D, with G = 3 D.

    ``r = σ(x_r + h U_r)``, ``z = σ(x_z + h U_z)``, ``h̃ = tanh(x_h + (r ∘ h) U_h)``, ``h ← (1 − z) ∘ h + z ∘ h̃``.
    With reset "after", ``h̃ = tanh(x_h + r ∘ (h U_h + b_h))``, the form of cuDNN.

    Where z weights the former state instead, as in PyTorch, its kernels and biases have the opposite sign:
    ``1 − σ(a) = σ(−a)``.

    Args:
        x: the inputs of reset gate, update gate and candidate state, side by side, their biases included.
        state: h.
        kernel: ``[U_r, U_z, U_h]``.
        bias: ``[b_r, b_z, b_h]``, added to the products with the state.
        reset: "before", as in the papers, or "after".

    Reference:
        Cho et al., Learning phrase representations using RNN encoder-decoder, EMNLP 2014, eq. 5-8.
    """
    dim = state.shape[-1]
    num_products = 2 if reset == "before" else 3
    products = state @ kernel[:, : num_products * dim]
    products = products if bias is None else products + bias[None, : num_products * dim]
    reset_gate = jax.nn.sigmoid(x[:, :dim] + products[:, :dim])
    update_gate = jax.nn.sigmoid(x[:, dim : 2 * dim] + products[:, dim : 2 * dim])
    if reset == "before":
        recurrent = (reset_gate * state) @ kernel[:, 2 * dim :]
        recurrent = recurrent if bias is None else recurrent + bias[None, 2 * dim :]
    else:
        recurrent = reset_gate * products[:, 2 * dim :]
    candidate = jnp.tanh(x[:, 2 * dim :] + recurrent)
    return (1.0 - update_gate) * state + update_gate * candidate


def gru_states(
    x: Float[Array, "B L G"],
    mask: Bool[Array, "B L"],
    kernel: Float[Array, "D G"],
    bias: Float[Array, " G"] | None = None,
    *,
    reset: str = "before",
    scale: Float[Array, "B L D"] | None = None,
) -> Float[Array, "B L D"]:
    """Returns the state after each position, from a state of zeros; a position without an item changes nothing.

    So the state at the last position is that after a session's last item, on whichever side the padding is.

    Args:
        x: as of :func:`gru_step`, for every position.
        mask: True on real items.
        kernel: as of :func:`gru_step`.
        bias: as of :func:`gru_step`.
        reset: as of :func:`gru_step`.
        scale: factors of the states, 0 where dropout drops a number; the scaled state is the next step's.
    """

    def step(state: Array, inputs: tuple[Array, Array, Array | None]) -> tuple[Array, Array]:
        x, is_item, scale = inputs
        updated = gru_step(x, state, kernel, bias, reset=reset)
        updated = updated if scale is None else updated * scale
        state = jnp.where(is_item[:, None], updated, state)
        return state, state

    in_time = x.swapaxes(0, 1), mask.T, None if scale is None else scale.swapaxes(0, 1)
    first = jnp.zeros((x.shape[0], kernel.shape[0]), x.dtype)
    return jax.lax.scan(step, first, in_time)[1].swapaxes(0, 1)
