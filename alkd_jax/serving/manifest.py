"""The files of a shipped student: `config.json`, the weights, the catalogue, and the compiled forms.

The files are treated as untrusted: only regular files of the folder are read, sizes and digests are checked before the
content is parsed, shapes before an array is used, and reading a file never executes anything in it. The digests detect
damage; they do not authenticate the author.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
import stat
from collections.abc import Mapping
from typing import Any

from alkd_jax.errors import printable, shown

FORMAT = 1
CONFIG, WEIGHTS, ITEMS = "config.json", "model.safetensors", "items.json"
PROGRAM, ONNX = "student.stablehlo", "student.onnx"
DTYPES = ("float32", "float16")
"""Types of the stored weights; computation is in float32."""
PACKED_DTYPE = "uint8"
"""Type of the arrays of a packed student."""
MAX_PROGRAM_BYTES = 2**26
"""The largest size of the program, which has no weights in it."""

_MAX_CONFIG_BYTES = 2**20
_MAX_ITEM_BYTES = 2**12
_MAX_VALUES: Mapping[str, int] = {"num_items": 2**31 - 2, "dim": 2**16, "list_length": 2**31 - 2}


@dataclasses.dataclass(frozen=True)
class Config:
    """The content of `config.json`.

    Attributes:
        backbone: name of the backbone, a key of ``alkd_jax.models.BACKBONES``, or the kind of a packed student.
        options: options of the backbone, without those that affect training only.
        num_items: V; items are ``1..V``.
        dim: width D.
        length: L, the number of most recent items that the student reads.
        list_length: K, the number of items that the compiled forms return.
        dtype: type of the stored weights, one of :data:`DTYPES`, or that of packed students.
        dataset: name of the dataset that the student was trained on.
        fingerprint: fingerprint of that dataset.
        versions: package → version, of the environment that wrote the folder.
        files: file name → size in bytes and SHA-256.
        left_out: name of a file that was not written → reason.
    """

    backbone: str
    options: Mapping[str, Any]
    num_items: int
    dim: int
    length: int
    list_length: int
    dtype: str
    dataset: str
    fingerprint: str
    versions: Mapping[str, str]
    files: Mapping[str, Mapping[str, Any]]
    left_out: Mapping[str, str]


def file_entry(data: bytes) -> dict[str, Any]:
    """Returns size and digest of a file's content, as in ``Config.files``."""
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def config_json(config: Config) -> bytes:
    """Returns the content of `config.json`."""
    return (json.dumps({"format": FORMAT} | dataclasses.asdict(config), indent=1) + "\n").encode()


def read_config(folder: pathlib.Path) -> tuple[Config, str]:
    """Reads and checks `config.json`.

    Returns:
        The config and the SHA-256 of its file. The file lists the digests of all others, so its digest identifies the
        student.

    Raises:
        FileNotFoundError: the file is missing.
        ValueError: the file is damaged, has another format version, or a value is out of range.
    """
    path = folder / CONFIG
    if not path.is_file() and not path.is_symlink():
        raise FileNotFoundError(f"{path}: no such file; expected the folder of a shipped student")
    data = _read_file(path, _MAX_CONFIG_BYTES)
    content = parse_json(data, path)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        file_format = content.get("format") if isinstance(content, dict) else type(content).__name__
        raise ValueError(f"{path}: format is {shown(file_format)}; expected {FORMAT}")
    del content["format"]
    fields = {field.name: field.type for field in dataclasses.fields(Config)}
    if content.keys() != fields.keys():
        raise ValueError(f"{path}: keys are {shown(sorted(content), width=300)}; expected {sorted(fields)}")
    for name, value in content.items():
        expected_type = next((simple_type for simple_type in (str, int) if fields[name] is simple_type), dict)
        if type(value) is not expected_type:
            raise ValueError(f"{path}: {name} is {shown(value)}; expected {expected_type.__name__}")
    for name, max_value in _MAX_VALUES.items():
        if not 1 <= content[name] <= max_value:
            raise ValueError(f"{path}: {name} is {shown(content[name])}; expected 1..{max_value}")
    if content["dtype"] not in (*DTYPES, PACKED_DTYPE):
        raise ValueError(f"{path}: dtype is {shown(content['dtype'])}; expected {' or '.join(DTYPES)}")
    return Config(**content), hashlib.sha256(data).hexdigest()


def read_checked(folder: pathlib.Path, config: Config, name: str, *, max_bytes: int) -> bytes:
    """Reads one of the files that the config lists.

    Args:
        folder: the folder.
        config: its config.
        name: of the file.
        max_bytes: the largest size that this student's file can have.

    Raises:
        FileNotFoundError: the file is missing.
        ValueError: the config does not list it, it is no regular file, it is too large, or its size or digest differ
            from the config.
    """
    path, entry = folder / name, config.files.get(name)
    if entry is None:
        reason = config.left_out.get(name, "the config does not list it")
        raise ValueError(f"{path}: not in this folder ({printable(reason, width=200)})")
    if not path.is_file() and not path.is_symlink():
        raise FileNotFoundError(f"{path}: no such file; expected because {CONFIG} lists it")
    data = _read_file(path, max_bytes)
    if not isinstance(entry, dict) or len(data) != entry.get("bytes"):
        raise ValueError(f"{path}: size is {len(data)} bytes; expected that in {CONFIG}")
    if file_entry(data) != entry:
        raise ValueError(f"{path}: SHA-256 is another; expected that in {CONFIG}")
    return data


def _read_file(path: pathlib.Path, max_bytes: int) -> bytes:
    """Reads a regular file, and not what a link, a pipe or a device in its place leads to.

    Raises:
        ValueError: it is none, or it is larger than ``max_bytes``.
    """
    if path.is_symlink():
        raise ValueError(f"{path}: is a symbolic link; expected a regular file of this folder")
    # A pipe without a writer would block a plain open; a link that appears after the check above is not followed.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError(f"{path}: is no regular file; expected a regular file of this folder")
        size = os.fstat(descriptor).st_size
        data = file.read(max_bytes + 1) if size <= max_bytes else b""
    if max(size, len(data)) > max_bytes:
        raise ValueError(f"{path}: size is {size:,} bytes; expected at most {max_bytes:,} for this student")
    return data


def parse_json(data: bytes, path: pathlib.Path) -> Any:
    """Parses untrusted JSON.

    Raises:
        ValueError: the data is not JSON; the error names file and line.
    """
    try:
        return json.loads(data, object_pairs_hook=_distinct_keys)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}:{error.lineno}: {error.msg}") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: {printable(error, width=200)}") from error


def _distinct_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in pairs:
        if key in values:
            raise ValueError(f"the key {shown(key)} is there twice; expected it once")
        values[key] = value
    return values


def max_items_bytes(num_items: int) -> int:
    """Returns the largest size of `items.json`: 4 KiB an item on average, and 1 MiB for a small catalogue."""
    return 2**20 + _MAX_ITEM_BYTES * num_items


def items_json(item_ids: tuple[str, ...], titles: tuple[str, ...]) -> bytes:
    """Returns the content of `items.json`, without the entries of the padding.

    Raises:
        ValueError: :func:`read_items` would refuse the content.
    """
    text = json.dumps({"item_ids": item_ids[1:], "titles": titles[1:]}, ensure_ascii=False, indent=0)
    try:
        content = text.encode()
    except UnicodeEncodeError as error:
        found = shown(text[max(0, error.start - 20) : error.end])
        raise ValueError(f"an item id or a title has half a character, as in {found}; expected Unicode text") from error
    if len(content) > (most := max_items_bytes(len(item_ids) - 1)):
        raise ValueError(f"item ids and titles have {len(content):,} bytes; expected at most {most:,}")
    return content


def read_items(folder: pathlib.Path, config: Config) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Reads the catalogue.

    Returns:
        V + 1 raw ids and V + 1 titles; the first of each is empty.

    Raises:
        FileNotFoundError: the file is missing.
        ValueError: the file is damaged or is not the catalogue of this student.
    """
    path = folder / ITEMS
    content = parse_json(read_checked(folder, config, ITEMS, max_bytes=max_items_bytes(config.num_items)), path)
    columns = []
    for name in ("item_ids", "titles"):
        column = content.get(name) if isinstance(content, dict) else None
        if not isinstance(column, list) or not all(type(entry) is str for entry in column):
            raise ValueError(f"{path}: {name} is of another type; expected a list of strings")
        if len(column) != config.num_items:
            raise ValueError(f"{path}: length of {name} is {len(column)}; expected {config.num_items}")
        try:
            "".join(column).encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"{path}: {name} has half a character ({error.reason}); expected Unicode text") from error
        columns.append(("", *column))
    item_ids, titles = columns
    if "" in item_ids[1:] or len(set(item_ids)) != len(item_ids):
        raise ValueError(f"{path}: an item id is empty or a duplicate; expected distinct ids")
    return item_ids, titles
