"""Many devices: a mesh with a data and a model axis, item tables by rows over the one, batches over the other."""

from alkd_jax.sharding.layout import Layout, layout_of
from alkd_jax.sharding.lookup import rows
from alkd_jax.sharding.mesh import DATA, MODEL, active, make, over_data, parse, using

__all__ = ["DATA", "MODEL", "Layout", "active", "layout_of", "make", "over_data", "parse", "rows", "using"]
