"""Prepared datasets: a folder of plain arrays and text, with a manifest of options, counts and checksums."""

import dataclasses
import json
import os
import pathlib
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int32, Int64

from alkd_jax.data.catalogue import NumberedSessions, number_items
from alkd_jax.data.interactions import Interactions
from alkd_jax.data.sessionize import SessionRules, sessionize
from alkd_jax.data.sessions import build_dataset
from alkd_jax.data.splits import SPLITS, split_rows
from alkd_jax.io import replacing, sha256_of, write_json, write_text
from alkd_jax.types import Dataset, Sequences

_FORMAT = 1
_SPLIT_NAMES = ("train", "validation", "test")
_ARRAYS_FILE, _CATALOGUE_FILE, _MANIFEST_FILE = "sessions.npz", "items.jsonl", "manifest.json"
_DTYPES = {"items": np.int32, "offsets": np.int64, "time": np.int64, "user": np.int32}


@dataclasses.dataclass(frozen=True)
class Prepared:
    """N complete sessions in the order training, validation, test.

    Attributes:
        name: name of the dataset in reports.
        sequences: complete sessions with items in ``1..V``.
        time: ``[T]`` time of every item, milliseconds since 1970 in UTC.
        user: ``[N]`` number of each session's user.
        sizes: numbers of sessions in training, validation and test.
        titles: V + 1 titles, the first empty.
        item_ids: V + 1 identifiers of the source, the first empty.
        options: options of session making and splitting; plain JSON values.
        report: counts of what was read and dropped; plain JSON values.
    """

    name: str
    sequences: Sequences
    time: Int64[np.ndarray, " T"]
    user: Int32[np.ndarray, " N"]
    sizes: tuple[int, int, int]
    titles: tuple[str, ...]
    item_ids: tuple[str, ...]
    options: Mapping[str, Any]
    report: Mapping[str, Any]

    def dataset(self, *, max_length: int = 10) -> Dataset:
        """Returns the three splits with the last item of each session held out."""
        return build_dataset(
            self.name,
            self.sequences,
            self.titles,
            self.item_ids,
            max_length=max_length,
            sizes=self.sizes,
            rule=SPLITS[self.options["split"]["rule"]],
            report={**self.report, "options": dict(self.options)},
        )


def prepare(
    log: Interactions,
    rules: SessionRules | None = None,
    *,
    split: str = "block",
    fractions: Sequence[float] = (0.6, 0.2, 0.2),
    days: int = 1,
    seed: int = 0,
    untitled: str = "drop",
) -> Prepared:
    """Makes sessions from interactions, numbers their items, and splits them.

    Args:
        log: E interactions.
        rules: how sessions are made; None for the recipe of the released data.
        split: a key of :data:`alkd_jax.data.splits.SPLITS`.
        fractions: shares of training, validation and test.
        days: number of days of the test split for "last-days".
        seed: random seed of the split.
        untitled: "drop" or "keep" items that are not in the file of titles.

    Returns:
        The sessions in the order of the splits, with all options and counts.

    Raises:
        ValueError: an option is unknown, no session is left, or a split is empty.
    """
    rules = rules or SessionRules()
    sessions = sessionize(log, rules)
    numbered = number_items(log, sessions, untitled=untitled)
    start = numbered.time[numbered.offsets[:-1]]
    split_row_numbers = split_rows(
        split,
        numbered.user,
        start,
        fractions=fractions,
        days=days,
        time_zone=rules.time_zone,
        source_split=numbered.split,
        seed=seed,
    )
    options = {
        "sessions": dataclasses.asdict(rules),
        "split": {"rule": split, "fractions": list(fractions), "days": days, "seed": seed},
        "untitled": untitled,
    }
    report = {**log.report, "sessionise": sessions.report, "catalogue": numbered.report}
    prepared = _reorder(log.name, numbered, np.concatenate(split_row_numbers), options, report)
    sizes = (len(split_row_numbers[0]), len(split_row_numbers[1]), len(split_row_numbers[2]))
    for name, size in zip(("training", "validation", "test"), sizes, strict=True):
        if not size:
            raise ValueError(
                f"split is {split!r} and leaves the {name} split of {len(start)} sessions empty; expected another rule"
            )
    return dataclasses.replace(prepared, sizes=sizes)


def _reorder(
    name: str,
    numbered: NumberedSessions,
    order: Int64[np.ndarray, " N"],
    options: dict[str, Any],
    report: dict[str, Any],
) -> Prepared:
    length = np.diff(numbered.offsets)[order]
    offsets = np.concatenate([[0], np.cumsum(length, dtype=np.int64)])
    source = np.arange(offsets[-1]) + np.repeat(numbered.offsets[:-1][order] - offsets[:-1], length)
    return Prepared(
        name=name,
        sequences=Sequences(items=numbered.items[source], offsets=offsets),
        time=numbered.time[source],
        user=numbered.user[order],
        sizes=(len(order), 0, 0),
        titles=numbered.titles,
        item_ids=numbered.item_ids,
        options=options,
        report=report,
    )


def save_prepared(folder: str | os.PathLike[str], prepared: Prepared) -> dict[str, Any]:
    """Writes the folder of a dataset. The manifest is written last, so that a folder with a manifest is complete.

    Args:
        folder: a new or empty folder, or the folder of a prepared dataset, which is replaced.
        prepared: the sessions to write.

    Returns:
        The manifest: ``sessions``, ``items``, ``interactions``, ``split``, ``fingerprint``, ``options``, ``report``.

    Raises:
        ValueError: the folder contains other files.
    """
    path = pathlib.Path(folder)
    if path.is_file():
        raise ValueError(f"{path} is a file; expected a folder or a new path")
    if path.is_dir() and any(path.iterdir()) and not (path / _MANIFEST_FILE).exists():
        raise ValueError(f"{path} contains other files; expected an empty folder or a prepared dataset")
    dataset = prepared.dataset()
    path.mkdir(parents=True, exist_ok=True)
    (path / _MANIFEST_FILE).unlink(missing_ok=True)
    arrays = {
        "items": prepared.sequences.items,
        "offsets": prepared.sequences.offsets,
        "time": prepared.time,
        "user": prepared.user,
    }
    typed: dict[str, Any] = {name: np.asarray(arrays[name], dtype) for name, dtype in _DTYPES.items()}
    with replacing(path / _ARRAYS_FILE) as partial, partial.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **typed)
    rows = zip(prepared.item_ids[1:], prepared.titles[1:], strict=True)
    write_text(path / _CATALOGUE_FILE, "".join(json.dumps(row) + "\n" for row in rows))
    manifest = {
        "format": _FORMAT,
        "name": prepared.name,
        "sessions": len(prepared.sequences),
        "items": len(prepared.titles) - 1,
        "interactions": len(prepared.time),
        "users": len(np.unique(prepared.user)),
        "split": {**prepared.options["split"], **dict(zip(_SPLIT_NAMES, prepared.sizes, strict=True))},
        "fingerprint": dataset.fingerprint,
        "fingerprint_max_length": 10,
        "options": dict(prepared.options),
        "report": dict(prepared.report),
        "files": {name: sha256_of(path / name) for name in (_ARRAYS_FILE, _CATALOGUE_FILE)},
    }
    write_json(path / _MANIFEST_FILE, manifest)
    return manifest


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
    path = pathlib.Path(folder)
    if not (path / _MANIFEST_FILE).is_file():
        raise FileNotFoundError(
            f"{path / _MANIFEST_FILE}: no such file; expected a folder written by experiments.prepare"
        )
    try:
        manifest = json.loads((path / _MANIFEST_FILE).read_text(encoding="utf-8"))
        if manifest["format"] != _FORMAT:
            raise ValueError(f"format is {manifest['format']!r}; expected {_FORMAT}")
        train, validation, test = (int(manifest["split"][name]) for name in _SPLIT_NAMES)
        for name in (_ARRAYS_FILE, _CATALOGUE_FILE):
            if sha256_of(path / name) != manifest["files"][name]:
                raise ValueError(
                    f"{name} is not the file that was written with the manifest; expected an unchanged folder"
                )
        ids, titles = _read_catalogue(path / _CATALOGUE_FILE)
        arrays = _read_arrays(path / _ARRAYS_FILE)
        return Prepared(
            name=manifest["name"],
            sequences=Sequences(items=arrays["items"], offsets=arrays["offsets"]),
            time=arrays["time"],
            user=arrays["user"],
            sizes=(train, validation, test),
            titles=titles,
            item_ids=ids,
            options=manifest["options"],
            report=manifest["report"],
        )
    except (ValueError, LookupError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path / _MANIFEST_FILE}: {' '.join(str(error).split())}") from error


def _read_catalogue(path: pathlib.Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    ids, titles = [""], [""]
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            row = json.loads(line)
            if not (isinstance(row, list) and len(row) == 2 and all(isinstance(part, str) for part in row)):
                raise ValueError(f"{path.name}, line {number}: not a pair of strings; expected an item id and a title")
            ids.append(row[0])
            titles.append(row[1])
    return tuple(ids), tuple(titles)


def _read_arrays(path: pathlib.Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in _DTYPES}
    for name, dtype in _DTYPES.items():
        if arrays[name].dtype != dtype or arrays[name].ndim != 1:
            raise ValueError(
                f"{name} is {arrays[name].dtype} {arrays[name].shape}; expected one axis of {np.dtype(dtype)}"
            )
    if len(arrays["time"]) != len(arrays["items"]) or len(arrays["user"]) != len(arrays["offsets"]) - 1:
        raise ValueError("time or user has another length than items or offsets; expected equal lengths")
    offsets = arrays["offsets"]
    if offsets[0] != 0 or offsets[-1] != len(arrays["items"]) or np.any(np.diff(offsets) < 2):
        raise ValueError(
            "offsets are not increasing; expected them to rise from 0 to the number of items, by at least 2 per session"
        )
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
    prepared = read_prepared(folder)
    try:
        return prepared.dataset(max_length=max_length)
    except (ValueError, LookupError) as error:
        raise ValueError(f"{folder}: {error}") from error
