"""Backbones: session encoders with an input and an output item table."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from alkd_jax.models.attmix import AttMix
from alkd_jax.models.encoder import Encoder, Params, encode, init_params
from alkd_jax.models.fpmc import FPMC
from alkd_jax.models.late_interaction import Late
from alkd_jax.models.stamp import STAMP

__all__ = [
    "BACKBONES",
    "FPMC",
    "STAMP",
    "AttMix",
    "Encoder",
    "Late",
    "Params",
    "create",
    "encode",
    "init_params",
    "params_from_reference",
    "released_form",
]

BACKBONES: Mapping[str, type] = {"fpmc": FPMC, "stamp": STAMP, "attmix": AttMix, "late": Late}


def create(backbone: str, *, num_items: int, dim: int, **options: Any) -> Encoder:
    """Makes a backbone by name.

    Args:
        backbone: one of :data:`BACKBONES`.
        num_items: the catalogue's size; the item tables have one row more.
        dim: width D; the paper's students have 10, its teachers 100.
        **options: further fields of that backbone.

    Raises:
        ValueError: the name is unknown, or a size is not positive.
    """
    if backbone not in BACKBONES:
        raise ValueError(f"backbone is {backbone!r}; expected one of {', '.join(BACKBONES)}")
    for name, size in (("num_items", num_items), ("dim", dim)):
        if size < 1:
            raise ValueError(f"{name} is {size}; expected at least 1")
    return BACKBONES[backbone](num_items=num_items, dim=dim, **options)


def params_from_reference(backbone: str, arrays: Mapping[str, np.ndarray]) -> Params:
    """Builds a parameter tree from plain arrays under the reference implementation's names.

    Args:
        backbone: one of :data:`BACKBONES`.
        arrays: name → array; kernels are ``[in, out]``; item tables have the padding in row 0. STAMP's tables end with
            one row that belongs to no item, as the reference allocates them; it is dropped.

    Returns:
        What ``model.init`` returns, with these values in float32.

    Raises:
        ValueError: an array is missing, unknown, or of the wrong shape.
    """
    table = arrays.get("output_embedding")
    if table is None or table.ndim != 2:
        raise ValueError(f"{backbone} needs a two-dimensional output_embedding; got {sorted(arrays)}")
    if backbone == "stamp":
        arrays = {name: array[:-1] if name.endswith("_embedding") else array for name, array in arrays.items()}
        table = arrays["output_embedding"]
    model = create(backbone, num_items=table.shape[0] - 1, dim=table.shape[1])
    expected = parameter_shapes(model)
    if expected.keys() != arrays.keys():
        raise ValueError(f"{backbone} expects arrays {sorted(expected)}; got {sorted(arrays)}")
    for name, shape in expected.items():
        if arrays[name].shape != shape:
            raise ValueError(f"{backbone} expects {name} of shape {shape}; got {arrays[name].shape}")
    return {"params": {name: jnp.asarray(array, jnp.float32) for name, array in arrays.items()}}


def released_form(model: Encoder) -> Encoder:
    """Returns the backbone as the authors' code runs it: STAMP sums its padding row along; the others are the same."""
    return model.clone(sum_padding=True) if isinstance(model, STAMP) else model


def parameter_shapes(model: Encoder) -> dict[str, tuple[int, ...]]:
    """Returns the shape of every parameter of a flat backbone, without allocating any."""
    tree = jax.eval_shape(lambda: init_params(jax.random.key(0), model))
    return {name: leaf.shape for name, leaf in tree["params"].items()}
