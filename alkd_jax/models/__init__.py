"""Backbones: session encoders, each with the item table that scores its session vectors."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from alkd_jax.checks import check_count
from alkd_jax.models.attmix import AttMix
from alkd_jax.models.core import CORE
from alkd_jax.models.encoder import (
    CausalEncoder,
    Encoder,
    Params,
    check_encoder,
    check_finite_params,
    check_params,
    encode,
    init_params,
)
from alkd_jax.models.fpmc import FPMC
from alkd_jax.models.gru4rec import GRU4Rec
from alkd_jax.models.hstu import HSTU
from alkd_jax.models.late_interaction import LateInteraction
from alkd_jax.models.narm import NARM
from alkd_jax.models.packed_student import PackedStudent
from alkd_jax.models.sasrec import ESASRec, GSASRec, SASRec
from alkd_jax.models.sparse_table import counted_table, packed_table
from alkd_jax.models.srgnn import SRGNN
from alkd_jax.models.stamp import STAMP
from alkd_jax.models.stored_sessions import packed_sessions
from alkd_jax.registry import Registry, accepts, is_outside

__all__ = [
    "BACKBONES",
    "CORE",
    "FPMC",
    "HSTU",
    "NARM",
    "SRGNN",
    "STAMP",
    "AttMix",
    "CausalEncoder",
    "ESASRec",
    "Encoder",
    "GRU4Rec",
    "GSASRec",
    "LateInteraction",
    "PackedStudent",
    "Params",
    "SASRec",
    "check_encoder",
    "check_finite_params",
    "check_params",
    "counted_table",
    "create",
    "encode",
    "init_params",
    "packed_sessions",
    "packed_table",
    "params_from_reference",
    "released_form",
]


def _adopt(name: str, found: Any) -> type | None:
    """Returns a Linen module class with the fields and the methods of an :class:`Encoder`, None for anything else."""
    if not (isinstance(found, type) and issubclass(found, nn.Module) and hasattr(found, "item_embeddings")):
        return None
    if not accepts(found.__call__, 4 if getattr(found, "reads_times", False) else 3, "train"):
        return None
    return found if {"num_items", "dim"} <= {field.name for field in dataclasses.fields(found)} else None


BACKBONES = Registry[type](
    "backbone",
    {
        "fpmc": FPMC,
        "stamp": STAMP,
        "attmix": AttMix,
        "late": LateInteraction,
        "gru4rec": GRU4Rec,
        "narm": NARM,
        "srgnn": SRGNN,
        "core": CORE,
        "sasrec": SASRec,
        "gsasrec": GSASRec,
        "esasrec": ESASRec,
        "hstu": HSTU,
    },
    "a Linen module class with the fields num_items and dim and the methods item_embeddings() and "
    "__call__(items, mask, *, train=False)",
    _adopt,
)
"""Name → backbone; ``BACKBONES.find`` also takes ``package.module:attribute``."""


def create(backbone: str, *, num_items: int, dim: int, **options: Any) -> Encoder:
    """Makes a backbone by name.

    Args:
        backbone: one of :data:`BACKBONES`, or ``package.module:attribute``, a class of your own.
        num_items: V, the number of items; the item tables have V + 1 rows.
        dim: width D; the paper's students have 10, its teachers 100.
        **options: other fields of that backbone.

    Raises:
        ValueError: the name is unknown, a size is not positive, the backbone does not take these options, or a class
            of your own returns arrays of other shapes than an :class:`Encoder`.
    """
    backbone_class = BACKBONES.find(backbone)
    check_count(1, num_items=num_items, dim=dim)
    try:
        model = backbone_class(num_items=num_items, dim=dim, **options)
    except TypeError as error:
        raise ValueError(f"backbone is {backbone!r} with options {sorted(options)}; {error}") from error
    if is_outside(backbone):
        check_encoder(model)
    return model


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
