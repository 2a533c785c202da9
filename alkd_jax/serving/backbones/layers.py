"""The layers that several backbones have, in NumPy and float32."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float

MIN_NORM = 1e-12
LAYER_NORM_EPSILON = 1e-8


def num_real_items(mask: Bool[np.ndarray, "B L"]) -> Float[np.ndarray, "B 1"]:
    """Returns the number of items in each session, at least 1."""
    return np.maximum(mask.sum(1, keepdims=True), 1).astype(np.float32)


def affine(
    x: Float[np.ndarray, "..."], arrays: Mapping[str, Float[np.ndarray, "..."]], name: str
) -> Float[np.ndarray, "..."]:
    """``x W + b``."""
    return x @ arrays[f"{name}_kernel"] + arrays[f"{name}_bias"]


def l2_normalize(x: Float[np.ndarray, "..."], *, axis: int) -> Float[np.ndarray, "..."]:
    """``x / max(‖x‖, 1e-12)``."""
    return x / np.maximum(np.sqrt((x * x).sum(axis, keepdims=True)), np.float32(MIN_NORM))


def sigmoid(x: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """``σ(x)``, by tanh, which does not overflow."""
    return 0.5 * np.tanh(0.5 * x) + 0.5


def softmax(x: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Softmax over the last axis."""
    exponentials = np.exp(x - x.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


def silu(x: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """``x σ(x)``."""
    return x * sigmoid(x)


def layer_norm(x: Float[np.ndarray, "..."], *, epsilon: float = LAYER_NORM_EPSILON) -> Float[np.ndarray, "..."]:
    """``(x − mean) / √(var + ε)``, over the last axis."""
    centered = x - x.mean(-1, keepdims=True)
    return centered / np.sqrt((centered * centered).mean(-1, keepdims=True) + np.float32(epsilon))


def affine_norm(
    x: Float[np.ndarray, "..."],
    arrays: Mapping[str, Float[np.ndarray, "..."]],
    name: str,
    *,
    epsilon: float = LAYER_NORM_EPSILON,
) -> Float[np.ndarray, "..."]:
    """``LN(x) ∘ g + b``, over the last axis."""
    return layer_norm(x, epsilon=epsilon) * arrays[f"{name}_scale"] + arrays[f"{name}_bias"]
