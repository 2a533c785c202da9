"""The student checkpoints that ALKDRec's authors released, as models and parameters of this library.

Item ``i`` of the release is item ``i + 1`` here. The file does not say which table encodes the input and which scores
the items. The assignment below reproduces the published recalls on the released test sessions; the opposite does not.
"""

import os
from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
from jaxtyping import Float32

from alkd_jax import models
from alkd_jax.data.torch_archives import read_torch_archive
from alkd_jax.errors import printable

Arrays: TypeAlias = Mapping[str, Float32[np.ndarray, "..."]]

_FPMC = frozenset({"LI_emb.weight", "item_emb.weight"})
_ATTENTION: Mapping[str, str] = {
    "w0.weight": "attention_out_kernel",
    "w1.weight": "attention_item_kernel",
    "w2.weight": "attention_last_kernel",
    "w3.weight": "attention_mean_kernel",
}
_STAMP = frozenset({"LI.weight", "item_emb.weight", "b_a", *_ATTENTION})
# The released STAMP allocates the two MLP layers of the original model and never uses them.
_STAMP_UNUSED = frozenset({"mlp_a.weight", "mlp_a.bias", "mlp_b.weight", "mlp_b.bias"})


def load_released_student(path: str | os.PathLike[str]) -> tuple[models.Encoder, models.Params]:
    """Reads a released student checkpoint.

    Args:
        path: a ``.pt`` archive of FPMC or STAMP.

    Returns:
        The backbone, which follows from the names in the archive, and its parameters.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged or is not such a checkpoint.
    """
    arrays = read_torch_archive(path)
    try:
        backbone, renamed = reference_arrays(arrays)
        params = models.params_from_reference(backbone, renamed)
        num_rows, dim = params["params"]["output_embedding"].shape
        return models.create(backbone, num_items=num_rows - 1, dim=dim), params
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def reference_arrays(arrays: Arrays) -> tuple[str, dict[str, Float32[np.ndarray, "..."]]]:
    """Renames the arrays of a released student and adds rows for padding.

    Item tables get a row 0 for padding. It is zero, except in STAMP's input table, where it is the released row 0,
    because the released model pads with that vector. Kernels become ``[in, out]``.

    Args:
        arrays: name → array as in the archive; kernels are ``[out, in]``.

    Returns:
        The backbone's name, and its arrays under the names of :func:`alkd_jax.models.params_from_reference`.

    Raises:
        ValueError: the names are not those of a released backbone, a shape does not match, or a number is not finite.
    """
    is_fpmc = arrays.keys() == _FPMC
    if not is_fpmc and arrays.keys() - _STAMP_UNUSED != _STAMP:
        names = printable(", ".join(sorted(arrays)) or "none")
        raise ValueError(f"it has arrays {names}; expected those of a released FPMC or STAMP")
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise ValueError(f"{name} has numbers that are not finite; expected finite numbers")
    return ("fpmc", _fpmc(arrays)) if is_fpmc else ("stamp", _stamp(arrays))


def _fpmc(arrays: Arrays) -> dict[str, Float32[np.ndarray, "..."]]:
    input_table, output_table = _item_tables(arrays["LI_emb.weight"], arrays["item_emb.weight"])
    padding = np.zeros_like(input_table[:1])
    return {
        "input_embedding": np.concatenate([padding, input_table]),
        "output_embedding": np.concatenate([padding, output_table]),
    }


def _stamp(arrays: Arrays) -> dict[str, Float32[np.ndarray, "..."]]:
    input_table, output_table = _item_tables(arrays["LI.weight"], arrays["item_emb.weight"])
    dim = input_table.shape[1]
    shapes = {"b_a": (dim,), **{name: (1 if name == "w0.weight" else dim, dim) for name in _ATTENTION}}
    for name, shape in shapes.items():
        if arrays[name].shape != shape:
            raise ValueError(f"{name} has shape {arrays[name].shape}; expected {shape}")
    return {
        "input_embedding": np.concatenate([input_table[:1], input_table]),
        "output_embedding": np.concatenate([np.zeros_like(output_table[:1]), output_table]),
        "attention_bias": arrays["b_a"],
        **{reference_name: arrays[name].T for name, reference_name in _ATTENTION.items()},
    }


def _item_tables(
    input_table: Float32[np.ndarray, "..."], output_table: Float32[np.ndarray, "..."]
) -> tuple[Float32[np.ndarray, "V D"], Float32[np.ndarray, "V D"]]:
    if input_table.ndim != 2 or input_table.shape != output_table.shape or len(input_table) < 2:
        raise ValueError(
            f"item tables have shapes {input_table.shape} and {output_table.shape}; expected two equal [items, width]"
        )
    return input_table, output_table
