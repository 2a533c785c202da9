"""Packed tables at the border: checkpoints and results hold tables as ``[V1, D]``, whatever machine trained them."""

from typing import Any

import jax
import numpy as np

from alkd_jax.ops import packed_rows
from alkd_jax.training.steppers.lazy_rows import LazyState


def pack_state(state: LazyState) -> LazyState:
    """Packs the narrow tables of a state and their slots on the host, and moves one array at a time to the device.

    Args:
        state: a state of NumPy arrays.
    """

    def to_device(leaf: Any, table: Any) -> Any:
        is_packed = leaf.shape == table.shape and packed_rows.is_narrow(leaf)
        return jax.device_put(packed_rows.pack(np.asarray(leaf)) if is_packed else leaf)

    tables = {name: to_device(table, table) for name, table in state.tables.items()}
    slots = {
        name: jax.tree.map(lambda leaf, table=state.tables[name]: to_device(leaf, table), slots)
        for name, slots in state.slots.items()
    }
    dense, opt_state = jax.device_put((state.dense, state.opt_state))
    return LazyState(tables, dense, slots, opt_state)


def unpack_on_host(tree: Any) -> Any:
    """Returns parameters or a state on the host, with its tables as ``[V1, D]``.

    Args:
        tree: any tree of arrays and packed tables.
    """
    return packed_rows.unpack_all(jax.tree.map(np.asarray, tree))
