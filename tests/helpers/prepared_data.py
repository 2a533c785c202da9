"""Prepared data in the source's own ids."""

import numpy as np


def sessions_of(prepared):
    """Every session as a list of the source's item ids."""
    items, offsets = np.asarray(prepared.sequences.items), np.asarray(prepared.sequences.offsets)
    return [[prepared.item_ids[item] for item in row] for row in np.split(items, offsets[1:-1])]
