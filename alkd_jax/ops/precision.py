"""The precision of training: the type of the products in a loss and its gradient.

================  ========================  ==========================  ==========================
precision         CPU                       GPU                         TPU
================  ========================  ==========================  ==========================
``"float32"``     float32                   float32                     six bfloat16 passes
``"tf32"``        float32                   TF32 on tensor cores        three bfloat16 passes
``"bfloat16"``    parameters rounded to     as on a CPU, products of    as on a CPU, one bfloat16
                  bfloat16                  parameters in bfloat16      pass
================  ========================  ==========================  ==========================

Parameters, gradients, the optimizer and validation are in float32 always. With "bfloat16" the loss reads a copy of the
parameters that is rounded to bfloat16: backbones compute in that type, and losses sum up in float32.
"""

import contextlib
from typing import Any

import jax
import jax.numpy as jnp

_MATMUL_PRECISION = {"float32": "float32", "tf32": "tensorfloat32", "bfloat16": "bfloat16"}
"""Name of a precision → JAX's name for the precision of a product of float32 matrices."""

PRECISIONS = tuple(_MATMUL_PRECISION)
"""The names of the precisions."""


def matmul_precision(name: str) -> contextlib.AbstractContextManager[Any]:
    """Returns a context in which products are traced with a precision, unless they name one themselves."""
    return jax.default_matmul_precision(_MATMUL_PRECISION[name])


def parameter_dtype(name: str) -> Any:
    """Returns the type that a loss reads the parameters in."""
    return jnp.bfloat16 if name == "bfloat16" else jnp.float32


def cast(params: Any, dtype: Any) -> Any:
    """Rounds the float32 arrays of a tree to a type; a tree is returned as it is for float32."""
    if dtype == jnp.float32:
        return params

    def cast_leaf(leaf: jax.Array) -> jax.Array:
        if leaf.dtype != jnp.float32:
            return leaf
        # A plain conversion may be dropped by the compiler where the next operation converts back.
        info = jnp.finfo(dtype)
        return jax.lax.reduce_precision(leaf, info.nexp, info.nmant).astype(dtype)

    return jax.tree.map(cast_leaf, params)


def at_least_float32(x: jax.Array) -> jax.Array:
    """Returns numbers in float32, or in their own type if that is wider; losses are computed from these."""
    x = jnp.asarray(x)
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
