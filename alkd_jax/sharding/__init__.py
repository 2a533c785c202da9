"""Many devices: a mesh with a data and a model axis, item tables by rows over the one, batches over the other."""

from alkd_jax.sharding.layout import Layout, layout_of
from alkd_jax.sharding.mesh import (
    DATA,
    MODEL,
    active,
    batch_axis,
    even_batch,
    everywhere,
    in_parts,
    make,
    over_data,
    parse,
    put,
    using,
)

__all__ = [
    "DATA",
    "MODEL",
    "Layout",
    "active",
    "batch_axis",
    "even_batch",
    "everywhere",
    "in_parts",
    "layout_of",
    "make",
    "over_data",
    "parse",
    "put",
    "using",
]
