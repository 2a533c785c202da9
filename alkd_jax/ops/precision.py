"""The precision of training and of scores.

Training: the type of the products in a loss and its gradient.

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

Scores of ranks and lists: float32 products, or sums of products of parts that a GPU's tensor cores multiply. A number
is split into bfloat16 or TF32 parts, and the products of the smallest parts are left out.

======================  ==================  ========================  ======================  ===================
precision               CPU                 NVIDIA GPU                TPU                     error ε
======================  ==================  ========================  ======================  ===================
``"highest"``           float32             float32                   six bfloat16 passes     2⁻²⁰ on a TPU, or 0
``"BF16_BF16_F32_X6"``  float32             six bfloat16 products     six bfloat16 passes     2⁻²⁰
``"TF32_TF32_F32_X3"``  float32             three TF32 products       six bfloat16 passes     2⁻¹⁹
``"BF16_BF16_F32_X3"``  float32             three bfloat16 products   three bfloat16 passes   2⁻¹³
======================  ==================  ========================  ======================  ===================

A score differs from the exact one by at most (ε + D 2⁻²³) Σ_d |u_d Y_vd|; the second term is the rounding of the sum
in float32. The names are those of :class:`jax.lax.DotAlgorithmPreset`, and ε holds whether parts are rounded or cut.
"""

import contextlib
from typing import Any

import jax
import jax.numpy as jnp

_MATMUL_PRECISION = {"float32": "float32", "tf32": "tensorfloat32", "bfloat16": "bfloat16"}
"""Name of a precision → JAX's name for the precision of a product of float32 matrices."""

PRECISIONS = tuple(_MATMUL_PRECISION)
"""The names of the precisions."""

SCORE_ERRORS = {
    "highest": 2.0**-20,
    "BF16_BF16_F32_X6": 2.0**-20,
    "TF32_TF32_F32_X3": 2.0**-19,
    "BF16_BF16_F32_X3": 2.0**-13,
}
"""Precision of scores → the largest error ε of a product on any platform, as in the table above."""

SCORE_PRECISIONS = tuple(SCORE_ERRORS)
"""The names of the precisions of scores."""


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
