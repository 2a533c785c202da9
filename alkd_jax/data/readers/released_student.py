"""The student checkpoints that ALKDRec's authors released, as models and parameters of this library.

Item ``i`` of the release is item ``i + 1`` here. Which table encodes and which scores was settled on the released test
sessions: with the assignment below the published recalls come out, with the tables exchanged they do not.
"""

import os
from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
from jaxtyping import Float32

from alkd_jax import models
from alkd_jax.data.pickles import read_torch_archive

Arrays: TypeAlias = Mapping[str, Float32[np.ndarray, "..."]]

_FPMC = frozenset({"LI_emb.weight", "item_emb.weight"})
_ATTENTION: Mapping[str, str] = {
    "w0.weight": "attention_out_kernel",
    "w1.weight": "attention_item_kernel",
    "w2.weight": "attention_last_kernel",
    "w3.weight": "attention_mean_kernel",
}
_STAMP = frozenset({"LI.weight", "item_emb.weight", "b_a", *_ATTENTION})
# the released STAMP allocates the original's two layers and never uses them
_STAMP_UNUSED = frozenset({"mlp_a.weight", "mlp_a.bias", "mlp_b.weight", "mlp_b.bias"})


def load_released_student(path: str | os.PathLike[str]) -> tuple[models.Encoder, models.Params]:
    """Read a released student checkpoint.

    Args:
        path: a ``.pt`` archive of FPMC or STAMP.

    Returns:
        The backbone, recognised from the names in the archive, and its parameters.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged or is not such a student.
    """
    arrays = read_torch_archive(path)
    try:
        backbone, named = reference_arrays(arrays)
        params = models.params_from_reference(backbone, named)
        num_rows, dim = params["params"]["output_embedding"].shape
        return models.create(backbone, num_items=num_rows - 1, dim=dim), params
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def reference_arrays(arrays: Arrays) -> tuple[str, dict[str, Float32[np.ndarray, "..."]]]:
    """Rename and renumber the arrays of a released student.

    Item tables get a row 0 for padding: zero, except that STAMP's input table keeps the released row 0 there, because
    its padding vector is not zero. Kernels become ``[in, out]``.

    Args:
        arrays: name → array as in the archive; kernels are ``[out, in]``.

    Returns:
        The backbone's name, and its arrays under the names of :func:`alkd_jax.models.params_from_reference`.

    Raises:
        ValueError: the names are those of no released backbone, a shape does not fit, or a number is not finite.
    """
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise ValueError(f"{name} has numbers that are not finite")
    if arrays.keys() == _FPMC:
        return "fpmc", _fpmc(arrays)
    if arrays.keys() - _STAMP_UNUSED == _STAMP:
        return "stamp", _stamp(arrays)
    raise ValueError(f"it has arrays {', '.join(sorted(arrays)) or 'none'}, expected those of a released FPMC or STAMP")


def _fpmc(arrays: Arrays) -> dict[str, Float32[np.ndarray, "..."]]:
    source, target = _tables(arrays["LI_emb.weight"], arrays["item_emb.weight"])
    padding = np.zeros_like(source[:1])
    return {
        "input_embedding": np.concatenate([padding, source]),
        "output_embedding": np.concatenate([padding, target]),
    }


def _stamp(arrays: Arrays) -> dict[str, Float32[np.ndarray, "..."]]:
    source, target = _tables(arrays["LI.weight"], arrays["item_emb.weight"])
    dim = source.shape[1]
    shapes = {"b_a": (dim,), **{name: (1 if name == "w0.weight" else dim, dim) for name in _ATTENTION}}
    for name, shape in shapes.items():
        if arrays[name].shape != shape:
            raise ValueError(f"{name} has shape {arrays[name].shape}, expected {shape}")
    return {
        "input_embedding": np.concatenate([source[:1], source]),
        "output_embedding": np.concatenate([np.zeros_like(target[:1]), target]),
        "attention_bias": arrays["b_a"],
        **{named: arrays[name].T for name, named in _ATTENTION.items()},
    }


def _tables(
    source: Float32[np.ndarray, "..."], target: Float32[np.ndarray, "..."]
) -> tuple[Float32[np.ndarray, "V D"], Float32[np.ndarray, "V D"]]:
    if source.ndim != 2 or source.shape != target.shape or len(source) < 2:
        raise ValueError(
            f"item tables have shapes {source.shape} and {target.shape}, expected two equal [items, width]"
        )
    return source, target
