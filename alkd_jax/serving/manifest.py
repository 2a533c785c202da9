"""The folder of a shipped student: `config.json`, the weights, the catalogue, and the compiled forms beside them.

Everything in it is taken as untrusted: sizes and digests are checked before a byte is interpreted, shapes before an
array is used, and nothing in it is ever run by reading it. The digests show damage, not who made the folder.
"""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Mapping
from typing import Any

FORMAT = 1
CONFIG, WEIGHTS, ITEMS = "config.json", "model.safetensors", "items.json"
PROGRAM, ONNX = "student.stablehlo", "student.onnx"
DTYPES = ("float32", "float16")
"""How the weights may be stored; they are computed with in float32."""

_CONFIG_BYTES = 2**20
_LARGEST: Mapping[str, int] = {"num_items": 2**31 - 2, "dim": 2**16, "length": 2**16, "list_length": 2**31 - 2}


@dataclasses.dataclass(frozen=True)
class Config:
    """What `config.json` says.

    Attributes:
        backbone: by the name it has in the library.
        options: of the backbone, those that matter after training.
        num_items: V; items are ``1..V``.
        dim: width D.
        length: L, how many of the most recent items the student reads.
        list_length: how many items the compiled forms return.
        dtype: of the stored weights, one of :data:`DTYPES`.
        dataset: name of what the student was trained on.
        fingerprint: of that dataset.
        versions: of what wrote the folder.
        files: name → size in bytes and SHA-256.
        left_out: files that could not be written → why.
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


def described(data: bytes) -> dict[str, Any]:
    """Size and digest of a file, as the config lists them."""
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def config_json(config: Config) -> bytes:
    """The text of `config.json`."""
    return (json.dumps({"format": FORMAT} | dataclasses.asdict(config), indent=1) + "\n").encode()


def read_config(folder: pathlib.Path) -> tuple[Config, str]:
    """Reads and checks `config.json`.

    Returns:
        The config, and the SHA-256 of its file: since it lists the digests of all others, it names this very student.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, of another format, or says something impossible.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file, expected the folder of a shipped student")
    with path.open("rb") as file:
        data = file.read(_CONFIG_BYTES + 1)
    if len(data) > _CONFIG_BYTES:
        raise ValueError(f"{path}: more than {_CONFIG_BYTES} bytes, expected a short description")
    held = parse_json(data, path)
    if not isinstance(held, dict) or held.get("format") != FORMAT:
        told = held.get("format") if isinstance(held, dict) else type(held).__name__
        raise ValueError(f"{path}: format {told!r}, expected {FORMAT}")
    del held["format"]
    fields = {field.name: field.type for field in dataclasses.fields(Config)}
    if held.keys() != fields.keys():
        raise ValueError(f"{path}: has {sorted(held)}, expected {sorted(fields)}")
    for name, value in held.items():
        kind = next((plain for plain in (str, int) if fields[name] is plain), dict)
        if type(value) is not kind:
            raise ValueError(f"{path}: {name} is {value!r}, expected {kind.__name__}"[:300])
    for name, largest in _LARGEST.items():
        if not 1 <= held[name] <= largest:
            raise ValueError(f"{path}: {name} is {held[name]}, expected 1..{largest}")
    if held["dtype"] not in DTYPES:
        raise ValueError(f"{path}: dtype is {held['dtype']!r}, expected {' or '.join(DTYPES)}")
    return Config(**held), hashlib.sha256(data).hexdigest()


def read_checked(folder: pathlib.Path, config: Config, name: str) -> bytes:
    """Reads one of the listed files whole.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not listed, or not the file that was written with the config.
    """
    path, listed = folder / name, config.files.get(name)
    if listed is None:
        why = config.left_out.get(name, "the config does not list it")
        raise ValueError(f"{path}: not in this folder ({why})")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file, though {CONFIG} lists it")
    if not isinstance(listed, dict) or path.stat().st_size != listed.get("bytes"):
        raise ValueError(f"{path}: of another size than {CONFIG} says")
    data = path.read_bytes()
    if described(data) != listed:
        raise ValueError(f"{path}: not the file that was written with {CONFIG} (its SHA-256 differs)")
    return data


def parse_json(data: bytes, path: pathlib.Path) -> Any:
    """Parses JSON from outside.

    Raises:
        ValueError: it is not JSON; names file and line.
    """
    try:
        return json.loads(data)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}:{error.lineno}: {error.msg}") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: {error}") from error


def items_json(item_ids: tuple[str, ...], titles: tuple[str, ...]) -> bytes:
    """The text of `items.json`; the padding's entries are left out."""
    return json.dumps({"item_ids": item_ids[1:], "titles": titles[1:]}, ensure_ascii=False, indent=0).encode()


def read_items(folder: pathlib.Path, config: Config) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Reads the catalogue.

    Returns:
        V + 1 ids of the source, and V + 1 titles; the first of each is empty.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged or not the catalogue of this student.
    """
    path = folder / ITEMS
    held = parse_json(read_checked(folder, config, ITEMS), path)
    columns = []
    for name in ("item_ids", "titles"):
        column = held.get(name) if isinstance(held, dict) else None
        if not isinstance(column, list) or not all(type(entry) is str for entry in column):
            raise ValueError(f"{path}: expected {name} as a list of strings")
        if len(column) != config.num_items:
            raise ValueError(f"{path}: {len(column)} {name}, expected {config.num_items}")
        try:
            "".join(column).encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"{path}: {name} has half of a character ({error.reason})") from error
        columns.append(("", *column))
    item_ids, titles = columns
    if "" in item_ids[1:] or len(set(item_ids)) != len(item_ids):
        raise ValueError(f"{path}: an item id is empty or there twice")
    return item_ids, titles
