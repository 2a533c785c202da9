"""Backbones: session encoders, each with the item table that scores its session vectors."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from alkd_jax.checks import check_at_least, check_one_of
from alkd_jax.models.attmix import AttMix
from alkd_jax.models.encoder import Encoder, Params, encode, init_params
from alkd_jax.models.fpmc import FPMC
from alkd_jax.models.late_interaction import LateInteraction
from alkd_jax.models.stamp import STAMP

__all__ = [
    "BACKBONES",
    "FPMC",
    "STAMP",
    "AttMix",
    "Encoder",
    "LateInteraction",
    "Params",
    "create",
    "encode",
    "init_params",
    "params_from_reference",
    "released_form",
]

BACKBONES: Mapping[str, type] = {"fpmc": FPMC, "stamp": STAMP, "attmix": AttMix, "late": LateInteraction}


def create(backbone: str, *, num_items: int, dim: int, **options: Any) -> Encoder:
    """Makes a backbone by name.

    Args:
        backbone: one of :data:`BACKBONES`.
        num_items: V, the number of items; the item tables have V + 1 rows.
        dim: width D; the paper's students have 10, its teachers 100.
        **options: other fields of that backbone.

    Raises:
        ValueError: the name is unknown, or a size is not positive.
    """
    check_one_of("backbone", backbone, BACKBONES)
    check_at_least(1, num_items=num_items, dim=dim)
    return BACKBONES[backbone](num_items=num_items, dim=dim, **options)


def params_from_reference(backbone: str, arrays: Mapping[str, np.ndarray]) -> Params:
    """Builds a parameter tree from plain arrays under the reference implementation's names.

    Args:
        backbone: one of :data:`BACKBONES`.
        arrays: name → array; kernels are ``[in, out]``, and row 0 of the item tables is padding. The reference
            allocates one row more for STAMP's tables; this last row belongs to no item and is dropped.

    Returns:
        Parameters as from ``model.init``, with these values in float32.

    Raises:
        ValueError: an array is missing, unknown, or of the wrong shape.
    """
    table = arrays.get("output_embedding")
    if table is None or table.ndim != 2:
        raise ValueError(f"arrays are {sorted(arrays)}; expected a two-dimensional output_embedding among them")
    if backbone == "stamp":
        arrays = {name: array[:-1] if name.endswith("_embedding") else array for name, array in arrays.items()}
        table = arrays["output_embedding"]
    model = create(backbone, num_items=table.shape[0] - 1, dim=table.shape[1])
    expected = parameter_shapes(model)
    if expected.keys() != arrays.keys():
        raise ValueError(f"arrays are {sorted(arrays)}; expected {sorted(expected)} for {backbone}")
    for name, shape in expected.items():
        if arrays[name].shape != shape:
            raise ValueError(f"shape of {name} is {arrays[name].shape}; expected {shape} for {backbone}")
    return {"params": {name: jnp.asarray(array, jnp.float32) for name, array in arrays.items()}}


def released_form(model: Encoder) -> Encoder:
    """Returns the backbone as in the authors' code: STAMP adds its padding row to the sums; others are unchanged."""
    return model.clone(sum_padding=True) if isinstance(model, STAMP) else model


def parameter_shapes(model: Encoder) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of all parameters of a backbone without submodules, without allocating any array."""
    tree = jax.eval_shape(lambda: init_params(jax.random.key(0), model))
    return {name: leaf.shape for name, leaf in tree["params"].items()}
