"""The folder of a prepared dataset: plain arrays and text, with a manifest of options, counts and digests."""

import json
import os
import pathlib
import re
import shutil
from typing import Any

import numpy as np

from alkd_jax.data.prepared import PART_NAMES, Prepared
from alkd_jax.data.splits import EVENT_SPLITS, SPLITS
from alkd_jax.errors import reading, shown, writing
from alkd_jax.io import (
    is_leftover,
    move_into,
    open_arrays,
    read_object,
    remove_leftovers,
    sha256_of,
    write_json,
    write_text,
)
from alkd_jax.locks import LOCK, locked
from alkd_jax.types import Dataset, Sequences

_WHOLE_FORMAT, _CUT_FORMAT = 1, 2
"""Formats of folders: of whole sessions, and of sessions that a split has cut, with the arrays of their cuts."""

_ARRAYS_FILE, _CATALOGUE_FILE, _SESSION_IDS_FILE = "sessions.npz", "items.jsonl", "session_ids.jsonl"
MANIFEST_FILE = "manifest.json"
WINDOWS_FORMAT = "windows"
"""The format of the manifest of a folder of windows, each of which is the folder of a dataset."""

_PARTIAL = ".prepared.partial"
"""The folder in which the files are written before they are moved."""

_SURROGATE_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")
_DTYPES: dict[str, type] = {"items": np.int32, "offsets": np.int64, "time": np.int64, "user": np.int32}
_CUT_DTYPES: dict[str, type] = {"first_target": np.int32, "source_row": np.int32}


def save_prepared(folder: str | os.PathLike[str], prepared: Prepared) -> dict[str, Any]:
    """Writes the folder of a dataset.

    All files are written beside those that are there and then moved over them, the manifest last. Nothing is replaced
    before everything is written, and after an interruption the same call can be repeated.

    Args:
        folder: a new or empty folder, or the folder of a prepared dataset, which is replaced.
        prepared: the sessions to write.

    Returns:
        The manifest: ``sessions``, ``items``, ``interactions``, ``split``, ``fingerprint``, ``options``, ``report``.

    Raises:
        ValueError: the folder contains other files, another process works in it, or an id or a title has both halves
            of a surrogate pair, which JSON would give back as one character.
    """
    path = pathlib.Path(folder)
    if path.exists() and not path.is_dir():
        raise ValueError(f"{path} is a file; expected a folder or a new path")
    _refuse_other_files(path)
    for text in (*prepared.item_ids, *prepared.titles, *(prepared.session_ids or ())):
        if _SURROGATE_PAIR.search(text):
            raise ValueError(f"text is {shown(text)}; expected one character where it has the two halves of one")
    dataset = prepared.dataset()
    path.mkdir(parents=True, exist_ok=True)
    with locked(path):
        _refuse_other_files(path)
        partial = path / _PARTIAL
        remove_leftovers(path)
        partial.mkdir()
        try:
            manifest = _write_files(partial, prepared, dataset)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        # An interruption between two moves leaves the manifest there, which tells that the moved files are ours.
        move_into(path, partial, (*manifest["files"], MANIFEST_FILE))
        shutil.rmtree(partial, ignore_errors=True)
    return manifest


def _refuse_other_files(path: pathlib.Path) -> None:
    """Raises ValueError where a folder holds files that this module did not write."""
    there = path.iterdir() if path.is_dir() else ()
    names = {file.name for file in there if file.name != LOCK and not is_leftover(file)}
    if (path / _PARTIAL / MANIFEST_FILE).exists():
        # A former call was interrupted while it moved its files.
        names -= {_ARRAYS_FILE, _CATALOGUE_FILE, _SESSION_IDS_FILE}
    if MANIFEST_FILE in names and _is_of_windows(path):
        raise ValueError(f"{path} holds windows of a dataset; expected an empty folder or that of one dataset")
    if names and MANIFEST_FILE not in names:
        raise ValueError(f"{path} contains other files; expected an empty folder or a prepared dataset")


def _is_of_windows(path: pathlib.Path) -> bool:
    """Returns whether a folder's manifest says that it holds windows; a damaged one says nothing."""
    try:
        return read_object(path / MANIFEST_FILE).get("format") == WINDOWS_FORMAT
    except ValueError:
        return False


def _write_files(path: pathlib.Path, prepared: Prepared, dataset: Dataset) -> dict[str, Any]:
    """Writes the files of a dataset into a folder, and returns the manifest."""
    arrays = {
        "items": prepared.sequences.items,
        "offsets": prepared.sequences.offsets,
        "time": prepared.time,
        "user": prepared.user,
    }
    dtypes = _DTYPES
    if not prepared.has_whole_sessions:
        arrays |= {name: getattr(prepared, name) for name in _CUT_DTYPES}
        dtypes = _DTYPES | _CUT_DTYPES
    typed: dict[str, Any] = {name: np.asarray(arrays[name], dtype) for name, dtype in dtypes.items()}
    with writing(path / _ARRAYS_FILE), (path / _ARRAYS_FILE).open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **typed)
    rows = zip(prepared.item_ids[1:], prepared.titles[1:], strict=True)
    write_text(path / _CATALOGUE_FILE, "".join(json.dumps(row) + "\n" for row in rows))
    files = [_ARRAYS_FILE, _CATALOGUE_FILE]
    if prepared.session_ids is not None:
        write_text(path / _SESSION_IDS_FILE, "".join(json.dumps(name) + "\n" for name in prepared.session_ids))
        files.append(_SESSION_IDS_FILE)
    manifest = {
        "format": _WHOLE_FORMAT if prepared.has_whole_sessions else _CUT_FORMAT,
        "name": prepared.name,
        **_counts(prepared),
        "users": len(np.unique(prepared.user)),
        "split": {**prepared.options["split"], **dict(zip(PART_NAMES, prepared.sizes, strict=True))},
        "fingerprint": dataset.fingerprint,
        "fingerprint_max_length": 10,
        "options": dict(prepared.options),
        "report": dict(prepared.report),
        "files": {name: sha256_of(path / name) for name in files},
    }
    write_json(path / MANIFEST_FILE, manifest)
    return manifest


def _counts(prepared: Prepared) -> dict[str, int]:
    """Returns numbers of sessions, items and interactions; one that is in several parts of the split counts once."""
    rows = prepared.distinct_rows
    return {
        "sessions": len(rows),
        "items": len(prepared.titles) - 1,
        "interactions": int(np.diff(np.asarray(prepared.sequences.offsets))[rows].sum()),
    }


def read_prepared(folder: str | os.PathLike[str]) -> Prepared:
    """Reads the folder of a dataset.

    Args:
        folder: a folder that :func:`save_prepared` wrote.

    Returns:
        The complete sessions with times and users.

    Raises:
        FileNotFoundError: the folder or one of its files is missing.
        ValueError: a file was changed or is not valid.
    """
    return _read(pathlib.Path(folder))[0]


def _read(path: pathlib.Path) -> tuple[Prepared, dict[str, Any]]:
    """Returns what :func:`read_prepared` does, and the manifest."""
    if not (path / MANIFEST_FILE).is_file():
        raise FileNotFoundError(
            f"{path / MANIFEST_FILE}: no such file; expected a folder written by experiments.prepare"
        )
    try:
        manifest = _read_manifest(path)
        files = [_ARRAYS_FILE, _CATALOGUE_FILE, *({_SESSION_IDS_FILE} & manifest["files"].keys())]
        for name in files:
            if sha256_of(path / name) != manifest["files"][name]:
                raise ValueError(f"{path / name} is not the file that was written with the manifest")
        ids, titles = _read_catalogue(path / _CATALOGUE_FILE)
        arrays = _read_arrays(path / _ARRAYS_FILE, is_cut=manifest["format"] == _CUT_FORMAT)
        session_ids = _read_session_ids(path / _SESSION_IDS_FILE) if _SESSION_IDS_FILE in files else None
        if session_ids is not None and len(session_ids) != len(arrays["user"]):
            raise ValueError(f"{path / _SESSION_IDS_FILE} has not one id for each of the sessions")
        sizes = tuple(manifest["split"][name] for name in PART_NAMES)
        prepared = Prepared(
            name=manifest["name"],
            sequences=Sequences(items=arrays["items"], offsets=arrays["offsets"]),
            time=arrays["time"],
            user=arrays["user"],
            sizes=(sizes[0], sizes[1], sizes[2]),
            titles=titles,
            item_ids=ids,
            options=manifest["options"],
            report=manifest["report"],
            first_target=arrays.get("first_target"),
            source_row=arrays.get("source_row"),
            session_ids=session_ids,
        )
        counts = _counts(prepared)
        if {name: manifest[name] for name in counts} != counts or sum(sizes) != len(arrays["user"]):
            raise ValueError(f"{path / MANIFEST_FILE} has other counts than the files beside it, {counts}")
    except ValueError as error:
        again = "put back a copy of it, or repeat the experiments.prepare that made the folder, which replaces it"
        raise ValueError(f"{error}; {again}") from error
    return prepared, manifest


def _read_manifest(path: pathlib.Path) -> dict[str, Any]:
    """Reads the manifest of a folder.

    Raises:
        ValueError: it is damaged; the error names the file and the part.
    """
    manifest = read_object(path / MANIFEST_FILE)
    if manifest.get("format") == WINDOWS_FORMAT:
        raise ValueError(f"{path} holds windows of a dataset; expected the folder of one, such as {path}/window-1")
    if manifest.get("format") not in (_WHOLE_FORMAT, _CUT_FORMAT):
        found = shown(manifest.get("format"))
        raise ValueError(f"{path / MANIFEST_FILE}: format is {found}; expected {_WHOLE_FORMAT} or {_CUT_FORMAT}")
    is_cut = manifest["format"] == _CUT_FORMAT
    match manifest:
        case {
            "name": str(),
            "sessions": int(),
            "items": int(),
            "interactions": int(),
            "split": {"train": int(), "validation": int(), "test": int()},
            "fingerprint": str(),
            "options": {"split": {"rule": str(rule)}},
            "report": {},
            "files": {**files},
        } if rule in SPLITS and (rule in EVENT_SPLITS) == is_cut and {_ARRAYS_FILE, _CATALOGUE_FILE} <= files.keys():
            return manifest
    raise ValueError(f"{path / MANIFEST_FILE} has not all parts of a manifest, or damaged ones")


def _read_catalogue(path: pathlib.Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    ids, titles = [""], [""]
    with reading(path), path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            with reading(f"{path}, line {number}", expected="an item id and a title"):
                row = json.loads(line)
            if not (isinstance(row, list) and len(row) == 2 and all(isinstance(part, str) for part in row)):
                raise ValueError(f"{path}, line {number}: not a pair of strings; expected an item id and a title")
            ids.append(row[0])
            titles.append(row[1])
    return tuple(ids), tuple(titles)


def _read_session_ids(path: pathlib.Path) -> tuple[str, ...]:
    names = []
    with reading(path), path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            with reading(f"{path}, line {number}", expected="the id of a session"):
                names.append(json.loads(line))
            if not isinstance(names[-1], str):
                raise ValueError(f"{path}, line {number}: not a string; expected the id of a session")
    return tuple(names)


def _read_arrays(path: pathlib.Path, *, is_cut: bool) -> dict[str, np.ndarray]:
    dtypes = _DTYPES | _CUT_DTYPES if is_cut else _DTYPES
    with open_arrays(path) as file:
        arrays = {name: file[name] for name in dtypes}
    for name, dtype in dtypes.items():
        if arrays[name].dtype != dtype or arrays[name].ndim != 1:
            raise ValueError(
                f"{name} is {arrays[name].dtype} {arrays[name].shape}; expected one axis of {np.dtype(dtype)}"
            )
    if len(arrays["time"]) != len(arrays["items"]) or len(arrays["user"]) != len(arrays["offsets"]) - 1:
        raise ValueError("time or user has another length than items or offsets; expected equal lengths")
    offsets = arrays["offsets"]
    if not len(offsets) or offsets[0] != 0 or offsets[-1] != len(arrays["items"]) or np.any(np.diff(offsets) < 2):
        raise ValueError(
            "offsets are not increasing; expected them to rise from 0 to the number of items, by at least 2 per session"
        )
    if is_cut:
        first, length = arrays["first_target"], np.diff(offsets)
        if len(first) != len(length) or len(arrays["source_row"]) != len(length):
            raise ValueError("first_target or source_row has another length than user; expected equal lengths")
        if np.any((first < 1) | (first >= length)):
            raise ValueError("first_target is not within its session; expected 1 to the session's length - 1")
    return arrays


def load_prepared(folder: str | os.PathLike[str], *, max_length: int = 10) -> Dataset:
    """Reads the folder of a dataset as three splits with the last item of each session held out.

    Args:
        folder: a folder that :func:`save_prepared` or ``experiments.prepare`` wrote.
        max_length: L, the number of most recent inputs that a model sees.

    Returns:
        The dataset.

    Raises:
        FileNotFoundError: the folder or one of its files is missing.
        ValueError: a file was changed or is not valid.
    """
    prepared, manifest = _read(pathlib.Path(folder))
    try:
        dataset = prepared.dataset(max_length=max_length)
    except (ValueError, LookupError) as error:
        raise ValueError(f"{folder}: {error}") from error
    if max_length == manifest.get("fingerprint_max_length") and dataset.fingerprint != manifest["fingerprint"]:
        raise ValueError(
            f"{pathlib.Path(folder) / MANIFEST_FILE} was edited: fingerprint is {shown(manifest['fingerprint'])}; "
            f"expected {dataset.fingerprint}, that of the sessions as they are split"
        )
    return dataset
