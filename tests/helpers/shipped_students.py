"""Shipped students made without JAX, and their folders; for tests of the readers and of the service."""

import json

import numpy as np

from alkd_jax.serving import manifest
from alkd_jax.serving.recommender import Recommender

_CAUSAL = {"max_length": 7, "blocks": 2, "heads": 2, "scaled": True, "separate": False}
OPTIONS = {
    "fpmc": {},
    "stamp": {"variant": "alkdrec", "sum_padding": True},
    "attmix": {"levels": 3, "heads": 2},
    "late": {"shared": False, "recency": 1.0},
    "gru4rec": {"embedding": "none", "layers": 2},
    "narm": {"state_factor": 2, "reset": "before"},
    "srgnn": {"steps": 1, "edges": "counted", "reset": "before"},
    "core": {"variant": "trm", "layers": 2, "heads": 2, "inner_dim": 12, "max_length": 8, "temperature": 0.07},
    "sasrec": _CAUSAL | {"variant": "original", "multiplier": 1},
    "gsasrec": _CAUSAL | {"variant": "original", "multiplier": 1, "scaled": False, "separate": True},
    "esasrec": _CAUSAL | {"variant": "pre_norm", "multiplier": 3},
    "hstu": _CAUSAL | {"divisor": "length", "temperature": 0.05, "time": False},
}


def arrays_of(backbone="fpmc", *, num_items=20, dim=4, seed=0):
    """Every parameter of a student at random."""
    from alkd_jax.serving import numpy_encoders

    rng = np.random.default_rng(seed)
    shapes = numpy_encoders.parameter_shapes(backbone, OPTIONS[backbone], num_items=num_items, dim=dim)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def student(backbone="fpmc", *, num_items=20, length=5, **sizes):
    """A student in memory."""
    ids = ("", *(f"id-{item}" for item in range(1, num_items + 1)))
    titles = ("", *("é" * item for item in range(1, num_items + 1)))
    arrays = arrays_of(backbone, num_items=num_items, **sizes)
    return Recommender(backbone, OPTIONS[backbone], arrays, ids, titles, length, "abc")


def write(folder, backbone="fpmc", *, num_items=20, dim=4, length=5, seed=0, arrays=None, **config):
    """The folder of a student, whose config vouches for all of its files; further arguments change the config."""
    import safetensors.numpy

    arrays = arrays_of(backbone, num_items=num_items, dim=dim, seed=seed) if arrays is None else arrays
    held = student(num_items=num_items)
    files = {
        manifest.WEIGHTS: safetensors.numpy.save(arrays),
        manifest.ITEMS: manifest.items_json(held.item_ids, held.titles),
    }
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    values = {
        "backbone": backbone,
        "options": OPTIONS[backbone],
        "num_items": num_items,
        "dim": dim,
        "length": length,
        "list_length": 10,
        "dtype": "float32",
        "dataset": "made",
        "fingerprint": "",
        "versions": {},
        "files": {name: manifest.file_entry(data) for name, data in files.items()},
        "left_out": {},
    }
    (folder / manifest.CONFIG).write_bytes(manifest.config_json(manifest.Config(**(values | config))))
    return folder


def rewrite(folder, name, data):
    """Replaces a file, and lets the config vouch for it."""
    config = json.loads((folder / manifest.CONFIG).read_text())
    config["files"][name] = manifest.file_entry(data)
    (folder / manifest.CONFIG).write_text(json.dumps(config))
    (folder / name).write_bytes(data)
