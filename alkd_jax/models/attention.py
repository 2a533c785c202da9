"""Parts of causal blocks: layer normalization, multi-head softmax attention, feed-forward layers."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from alkd_jax.models.causal import MATRIX, BlockParams, Shapes
from alkd_jax.ops.products import linear_of_stored

LAYER_NORM_EPSILON = 1e-8


def layer_norm(x: Float[Array, "*batch D"], *, epsilon: float = LAYER_NORM_EPSILON) -> Float[Array, "*batch D"]:
    """``(x − mean) / √(var + ε)``, over the last axis."""
    centered = x - x.mean(-1, keepdims=True)
    return centered * jax.lax.rsqrt((centered * centered).mean(-1, keepdims=True) + epsilon)


def scaled_norm(
    x: Float[Array, "*batch D"],
    scale: Float[Array, " D"],
    bias: Float[Array, " D"],
    *,
    epsilon: float = LAYER_NORM_EPSILON,
) -> Float[Array, "*batch D"]:
    """``LN(x) ∘ g + b``, over the last axis."""
    scale, bias = (array.reshape((1,) * (x.ndim - 1) + (-1,)) for array in (scale, bias))
    return layer_norm(x, epsilon=epsilon) * scale + bias


def norm_shapes(name: str, dim: int) -> Shapes:
    """Returns scale and bias of a layer normalization."""
    return {f"{name}_scale": (nn.initializers.ones, (dim,)), f"{name}_bias": (nn.initializers.zeros, (dim,))}


def affine_norm(params: BlockParams, name: str, x: Float[Array, "*batch D"]) -> Float[Array, "*batch D"]:
    """Layer normalization with scale and bias."""
    return scaled_norm(x, params[f"{name}_scale"], params[f"{name}_bias"])


def linear_shapes(name: str, inputs: int, outputs: int, *, bias: bool = True) -> Shapes:
    """Returns kernel and bias of a linear map."""
    kernel: Shapes = {f"{name}_kernel": (MATRIX, (inputs, outputs))}
    return kernel | ({f"{name}_bias": (nn.initializers.zeros, (outputs,))} if bias else {})


def project(params: BlockParams, name: str, x: Float[Array, "*batch I"]) -> Float[Array, "*batch D"]:
    """``x W + b``, or ``x W`` where there is no bias."""
    return linear_of_stored(x, params[f"{name}_kernel"], params.get(f"{name}_bias"))


def split_heads(x: Float[Array, "B L D"], heads: int) -> Float[Array, "B H L P"]:
    """Splits the width into heads, which come before the positions as the products of heads need them."""
    return x.reshape(*x.shape[:-1], heads, -1).swapaxes(1, 2)


def merge_heads(x: Float[Array, "B H L P"]) -> Float[Array, "B L D"]:
    """Puts the heads' vectors of a position side by side: the inverse of :func:`split_heads`."""
    merged = x.swapaxes(1, 2)
    return merged.reshape(*merged.shape[:2], -1)


def softmax_attention(
    query: Float[Array, "B L D"],
    key: Float[Array, "B M D"],
    value: Float[Array, "B M D"],
    visible: Bool[Array, "B L M"],
    heads: int,
    drop: Callable[[Array], Array],
) -> Float[Array, "B L D"]:
    """``softmax_m(q_l · k_m / √P) v_m`` in every head of width P, with dropout of the weights.

    Args:
        query: q of the positions.
        key: k of the positions that are read.
        value: v of the positions that are read.
        visible: which positions are read; at least one by each.
        heads: H.
        drop: dropout.

    Reference:
        Vaswani et al., Attention is all you need, NeurIPS 2017, eq. 1.
    """
    query, key, value = (split_heads(x, heads) for x in (query, key, value))
    energy = query @ key.swapaxes(2, 3) * query.shape[-1] ** -0.5
    weight = drop(jax.nn.softmax(jnp.where(visible[:, None], energy, -jnp.inf), axis=-1))
    return merge_heads(weight @ value)


def swiglu_shapes(dim: int, hidden: int) -> Shapes:
    """Returns the parameters of :func:`swiglu`."""
    return (
        linear_shapes("gate", dim, hidden, bias=False)
        | linear_shapes("inner", dim, hidden, bias=False)
        | linear_shapes("outer", hidden, dim, bias=False)
    )


def swiglu(params: BlockParams, x: Float[Array, "B L D"], drop: Callable[[Array], Array]) -> Float[Array, "B L D"]:
    """``(silu(x W_gate) ∘ x W_inner) W_outer``, with dropout of the hidden layer.

    Reference:
        Shazeer, GLU variants improve transformer, 2020.
    """
    hidden = jax.nn.silu(project(params, "gate", x)) * project(params, "inner", x)
    return project(params, "outer", drop(hidden))
