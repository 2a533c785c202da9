"""Many devices: a mesh with a data and a model axis, item tables by rows over the one, batches over the other."""

from alkd_jax.sharding.layout import Layout, layout_of
from alkd_jax.sharding.mesh import (
    DATA,
    MODEL,
    batch_axis,
    current_mesh,
    device_put_global,
    even_batch,
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
    "even_batch",
    "layout_of",
    "make_mesh",
    "parse_mesh",
    "replicate",
    "shard_batch",
    "shard_map_unchecked",
    "use_mesh",
]
