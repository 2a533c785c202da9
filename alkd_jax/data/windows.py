"""Consecutive windows of a log, each a dataset of its own that is split by time, so that results vary over time."""

import dataclasses
import itertools
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from alkd_jax.checks import check_count
from alkd_jax.data.interactions import Interactions
from alkd_jax.data.prepared import Prepared, prepare_sessions
from alkd_jax.data.prepared_folder import MANIFEST_FILE, WINDOWS_FORMAT, save_prepared
from alkd_jax.data.session_rules import SessionRules
from alkd_jax.data.sessionize import SessionLog, sessionize
from alkd_jax.data.splits import SplitRules
from alkd_jax.io import is_leftover, read_object, write_json
from alkd_jax.locks import LOCK, locked


def prepare_windows(
    log: Interactions,
    rules: SessionRules | None = None,
    split: SplitRules | None = None,
    *,
    num_windows: int = 5,
    untitled: str = "drop",
) -> list[Prepared]:
    """Cuts the time from the first event to the last into W windows of equal duration, and splits each by time.

    A window has the events of its own time only: sessions are cut at its ends, and its catalogue holds the items of its
    sessions, so that nothing of a later window is known in an earlier one. The cuts of its split are at shares of its
    duration, so that training, validation and test are equally long in all windows.

    Args:
        log: E interactions with times.
        rules: how sessions are made; None for the recipe of the released data.
        split: options of "time-events"; ``fractions`` are shares of a window's duration. None for the defaults.
        num_windows: W.
        untitled: "drop" or "keep" items that are not in the file of titles.

    Returns:
        W datasets, named after their windows; ``options["window"]`` has the number and the times of each.

    Raises:
        ValueError: the split is another one or names times, or a part of a window is empty.

    Reference:
        Ludewig, Jannach: Evaluation of session-based recommendation algorithms, UMUAI 2018, sliding windows.
    """
    check_count(1, num_windows=num_windows)
    rules, split = rules or SessionRules(), split or SplitRules("time-events")
    if split.rule != "time-events" or split.test_time is not None or split.validation_time is not None:
        raise ValueError(
            f"split of windows is {split.rule!r} with times {split.validation_time}, {split.test_time}; expected "
            "'time-events' without times, since shares of each window give them"
        )
    sessions = sessionize(log, rules)
    begin, end = int(sessions.time.min()), int(sessions.time.max()) + 1
    edges = [begin + (end - begin) * number // num_windows for number in range(num_windows + 1)]
    windows = []
    for number, (first, last) in enumerate(itertools.pairwise(edges), 1):
        title = f"window {number} of {num_windows}"
        cuts = [first + round((last - first) * share) for share in np.cumsum(split.fractions)[:2]]
        timed = dataclasses.replace(
            split, test_time=cuts[1], validation_time=cuts[0] if split.validation == "time" else None
        )
        try:
            prepared = prepare_sessions(log, _between(sessions, first, last), rules, timed, untitled=untitled)
        except ValueError as error:
            raise ValueError(f"{title}: {error}") from error
        window = {"number": number, "of": num_windows, "first_time": first, "end_time": last}
        windows.append(
            dataclasses.replace(prepared, name=f"{log.name} ({title})", options={**prepared.options, "window": window})
        )
    return windows


def _between(sessions: SessionLog, first: int, end: int) -> SessionLog:
    """Returns the parts of sessions whose events are at ``first`` or later and before ``end``."""
    length = np.diff(sessions.offsets)
    inside = (sessions.time >= first) & (sessions.time < end)
    row = np.repeat(np.arange(len(length)), length)
    num_inside = np.bincount(row[inside], minlength=len(length))
    keep = num_inside >= 2
    if not keep.any():
        raise ValueError("no session has two events in it; expected fewer windows")
    kept = inside & keep[row]
    counts = {
        "events": int(inside.sum()),
        "sessions": int(np.sum(num_inside > 0)),
        "sessions_cut": int(np.sum((num_inside > 0) & (num_inside < length))),
        "sessions_of_one_event_dropped": int(np.sum(num_inside == 1)),
    }
    return SessionLog(
        item=sessions.item[kept],
        time=sessions.time[kept],
        offsets=np.concatenate([[0], np.cumsum(num_inside[keep], dtype=np.int64)]),
        user=sessions.user[keep],
        split=None,
        report={**sessions.report, "window": counts},
        session=None if sessions.session is None else sessions.session[keep],
    )


def save_windows(folder: str | os.PathLike[str], windows: Sequence[Prepared]) -> dict[str, Any]:
    """Writes each window as the folder of a dataset, ``window-1`` and so on, and a manifest of all.

    Args:
        folder: a new or empty folder, or a folder of at most as many windows, which are replaced.
        windows: W datasets, as from :func:`prepare_windows`.

    Returns:
        The manifest: ``windows`` has the folder, the fingerprint, the split and the counts of each.

    Raises:
        ValueError: the folder contains other files, or another process works in it.
    """
    path = pathlib.Path(folder)
    names = [f"window-{number}" for number in range(1, len(windows) + 1)]
    _refuse_other_files(path, names)
    path.mkdir(parents=True, exist_ok=True)
    with locked(path):
        _refuse_other_files(path, names)
        manifests = [save_prepared(path / name, window) for name, window in zip(names, windows, strict=True)]
        kept = ("name", "sessions", "items", "interactions", "users", "split", "fingerprint")
        manifest = {
            "format": WINDOWS_FORMAT,
            "windows": [
                {"folder": name, **{key: found[key] for key in kept}, "window": found["options"]["window"]}
                for name, found in zip(names, manifests, strict=True)
            ],
            **{key: sum(found[key] for found in manifests) for key in ("sessions", "interactions")},
        }
        write_json(path / MANIFEST_FILE, manifest)
    return manifest


def _refuse_other_files(path: pathlib.Path, names: Sequence[str]) -> None:
    """Raises ValueError where a folder holds anything but these windows and their manifest."""
    if path.exists() and not path.is_dir():
        raise ValueError(f"{path} is a file; expected a folder or a new path")
    there = {file.name for file in (path.iterdir() if path.is_dir() else ()) if not is_leftover(file)}
    others = there - {*names, MANIFEST_FILE, LOCK}
    if others or (MANIFEST_FILE in there and read_object(path / MANIFEST_FILE).get("format") != WINDOWS_FORMAT):
        raise ValueError(
            f"{path} contains other files; expected an empty folder or one of at most {len(names)} windows"
        )
