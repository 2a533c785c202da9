"""Archives of float32 arrays written by ``torch.save``, read without torch."""

import math
import os
import pathlib
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float32

from alkd_jax.data.archives import zip_entries
from alkd_jax.data.pickles import (
    DECODE_ERRORS,
    PERSISTENT_ID,
    Global,
    existing_file,
    expect_call,
    expect_sizes,
    read_pickle,
)
from alkd_jax.errors import printable, shown

_TORCH_NAMES = frozenset({"collections.OrderedDict", "torch.FloatStorage", "torch._utils._rebuild_tensor_v2"})


def read_torch_archive(path: str | os.PathLike[str]) -> dict[str, Float32[np.ndarray, "..."]]:
    """Reads the float32 arrays of a saved torch state dictionary, without torch.

    Args:
        path: the zip archive that ``torch.save`` wrote.

    Returns:
        Name → read-only array, in the order of the file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the archive is damaged or truncated, or contains anything but little-endian float32 arrays.
    """
    file = existing_file(path)
    try:
        with zipfile.ZipFile(file) as archive:
            members = _members(archive, file)
        root = read_pickle(members["data.pkl"], allowed_names=_TORCH_NAMES, source="data.pkl")
        arrays = expect_call(root, "collections.OrderedDict").entries
        return {str(name): _tensor(name, node, members) for name, node in arrays.items()}
    except (*DECODE_ERRORS, zipfile.BadZipFile, EOFError, OSError, RuntimeError) as error:
        reason = printable(error, width=300)
        raise ValueError(f"{printable(path)}: not a torch archive of float32 arrays: {reason}") from error


def _members(archive: zipfile.ZipFile, path: pathlib.Path) -> dict[str, bytes]:
    entries = zip_entries(archive, path)
    if any(entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size for entry in entries):
        raise ValueError("it is compressed; expected stored members")
    # Every member's name starts with the archive's name, which may contain any character but a slash.
    members: dict[str, bytes] = {}
    for entry in entries:
        name = entry.filename.partition("/")[2]
        if name in members:
            raise ValueError(f"two of its members are named {shown(name)}; expected distinct names")
        members[name] = archive.read(entry)
    for name in ("data.pkl", "byteorder"):
        if name not in members:
            raise ValueError(f"it has no member {name}; expected data.pkl and byteorder")
    if members["byteorder"] != b"little":
        raise ValueError(f"its byte order is {shown(members['byteorder'], width=20)}; expected little")
    return members


def _tensor(name: object, node: Any, members: Mapping[str, bytes]) -> Float32[np.ndarray, "..."]:
    storage, offset, shape, strides = expect_call(node, "torch._utils._rebuild_tensor_v2").arguments[:4]
    tag, kind, key, _, size = expect_call(storage, PERSISTENT_ID).arguments[0]
    if tag != "storage" or kind != Global("torch.FloatStorage") or type(key) is not str:
        raise ValueError(f"{shown(name)} is not in a float32 storage; expected torch.FloatStorage")
    data = members.get(f"data/{key}")
    if data is None:
        raise ValueError(f"it has no member {shown(f'data/{key}')}, where {shown(name)} is stored; expected it")
    expect_sizes((offset, size)), expect_sizes(shape), expect_sizes(strides)
    if len(data) != 4 * size:
        raise ValueError(f"the storage of {shown(name)} has {len(data)} bytes; expected {4 * size}")
    last = offset + sum((extent - 1) * stride for extent, stride in zip(shape, strides, strict=True))
    # An array must not have more numbers than its storage: with stride 0 a small file could become a huge array.
    if math.prod(shape) > size or (math.prod(shape) and last >= size):
        raise ValueError(
            f"{shown(name)} of shape {shown(shape)}, strides {shown(strides)} and offset {offset} exceeds its storage; "
            f"expected at most {size} numbers"
        )
    values = np.frombuffer(data, dtype="<f4")[min(offset, size) :]
    view = np.lib.stride_tricks.as_strided(values, shape, tuple(4 * stride for stride in strides), writeable=False)
    return view.astype(np.float32, copy=False)
