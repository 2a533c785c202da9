"""Pickles, frames and torch archives written by hand, so that a test can make any file that an attacker could."""

import io
import struct
import zipfile

import numpy as np

from alkd_jax.data.pickles import Call, Global


def call(function, *arguments, state=None, **entries):
    return Call(Global(function), arguments, state, entries)


def dump(node):
    """The opcodes that make a node, without the end."""
    match node:
        case None | True | False:
            return {None: b"N", True: b"\x88", False: b"\x89"}[node]
        case int():
            size = node.bit_length() // 8 + 1
            return b"\x8a" + bytes([size]) + node.to_bytes(size, "little", signed=True)
        case str():
            return b"X" + struct.pack("<I", len(node.encode())) + node.encode()
        case bytes():
            return b"B" + struct.pack("<I", len(node)) + node
        case list():
            return b"](" + b"".join(map(dump, node)) + b"e"
        case tuple():
            return b"(" + b"".join(map(dump, node)) + b"t"
        case dict():
            return b"}(" + b"".join(dump(part) for pair in node.items() for part in pair) + b"u"
        case Global():
            module, _, name = node.name.rpartition(".")
            return b"c" + module.encode() + b"\n" + name.encode() + b"\n"
        case Call(Global("persistent id"), (identifier,)):
            return dump(identifier) + b"Q"
        case Call():
            made = dump(node.function) + dump(node.arguments) + b"R"
            made += b"(" + dump(node.entries)[2:] if node.entries else b""
            return made + (dump(node.state) + b"b" if node.state is not None else b"")
    raise TypeError(node)


def dumps(node):
    return b"\x80\x02" + dump(node) + b"."


def object_array(values, *shape):
    kind = call("numpy.dtype", "O8", False, True, state=(3, "|", None, None, None, -1, -1, 63))
    empty = (Global("numpy.ndarray"), (0,), b"b")
    return call("numpy.core.multiarray._reconstruct", *empty, state=(1, shape, kind, False, values))


def integer_index(labels):
    kind = call("numpy.dtype", "i8", False, True, state=(3, "<", None, None, None, -1, -1, 0))
    data = call("numpy.core.numeric._frombuffer", np.asarray(labels, "<i8").tobytes(), kind, (len(labels),), "C")
    return call("pandas.core.indexes.base._new_Index", Global("pandas.core.indexes.base.Index"), {"data": data})


def range_index(stop):
    bounds = {"name": None, "start": 0, "stop": stop, "step": 1}
    return call("pandas.core.indexes.base._new_Index", Global("pandas.core.indexes.range.RangeIndex"), bounds)


def frame(names, blocks, index):
    """A frame from its column names, its blocks as (values, first column, end column) and its row index."""
    columns = {"data": object_array(list(names), len(names)), "name": None}
    pieces = tuple(
        call("pandas._libs.internals._unpickle_block", values, call("builtins.slice", start, stop, 1), 2)
        for values, start, stop in blocks
    )
    axes = [call("pandas.core.indexes.base._new_Index", Global("pandas.core.indexes.base.Index"), columns), index]
    manager = call("pandas.core.internals.managers.BlockManager", pieces, axes)
    return call("pandas.core.frame.DataFrame", state={"_mgr": manager})


def session_frame(sessions, labels, index=None):
    values = object_array([*sessions, *labels], 2, len(sessions))
    return frame(["session", "label"], [(values, 0, 2)], range_index(len(sessions)) if index is None else index)


def tensor(key, size, offset, shape, strides, storage="torch.FloatStorage"):
    identifier = ("storage", Global(storage), key, "cpu", size)
    return call(
        "torch._utils._rebuild_tensor_v2",
        call("persistent id", identifier),
        offset,
        shape,
        strides,
        False,
        call("collections.OrderedDict"),
    )


def archive(tensors, storages, *, byteorder=b"little", compression=zipfile.ZIP_STORED, pickled=None):
    """A torch archive of named tensors over numbered storages, as bytes."""
    buffer = io.BytesIO()
    pickled = dumps(call("collections.OrderedDict", **tensors)) if pickled is None else pickled
    with zipfile.ZipFile(buffer, "w", compression) as file:
        file.writestr("student/data.pkl", pickled)
        if byteorder is not None:
            file.writestr("student/byteorder", byteorder)
        for key, numbers in enumerate(storages):
            file.writestr(f"student/data/{key}", np.asarray(numbers, "<f4").tobytes())
    return buffer.getvalue()


def state_dict(arrays):
    """A torch archive of C-ordered arrays, as bytes."""
    tensors, storages = {}, []
    for key, (name, array) in enumerate(arrays.items()):
        array = np.ascontiguousarray(array, "<f4")
        strides = tuple(stride // 4 for stride in array.strides)
        tensors[name] = tensor(str(key), array.size, 0, array.shape, strides)
        storages.append(array)
    return archive(tensors, storages)
