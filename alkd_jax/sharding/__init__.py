"""Sharding over several devices: a mesh with a data axis for batches and a model axis for the rows of item tables."""

from alkd_jax.sharding.layout import Layout, layout_of
from alkd_jax.sharding.mesh import (
    DATA,
    MODEL,
    batch_axis,
    current_mesh,
    device_put_global,
    even_batch_size,
    make_mesh,
    parse_mesh,
    replicate,
    shard_batch,
    shard_map_unchecked,
    use_mesh,
)

__all__ = [
    "DATA",
    "MODEL",
    "Layout",
    "batch_axis",
    "current_mesh",
    "device_put_global",
    "even_batch_size",
    "layout_of",
    "make_mesh",
    "parse_mesh",
    "replicate",
    "shard_batch",
    "shard_map_unchecked",
    "use_mesh",
]
