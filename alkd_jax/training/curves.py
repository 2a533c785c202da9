"""Learning curves as they grow: one JSON line a validation, and TensorBoard where it is installed."""

import contextlib
import json
import math
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

from alkd_jax.training.results import Progress


@contextlib.contextmanager
def curve_log(folder: pathlib.Path) -> Iterator[Callable[[Progress], None]]:
    """Writes what ``fit`` tells, as it tells it.

    ``FOLDER/curves.jsonl`` holds ``{"step", "loss": [S], "recall": [S], "sessions_per_second"}``, null for a seed that
    has stopped. A run that goes on from a checkpoint takes some steps again: the older lines of these are dropped.
    Where the package tensorboardX is installed, the same numbers go into ``FOLDER/tensorboard``.

    Args:
        folder: made if it is not there.

    Yields:
        What :func:`alkd_jax.training.fit` takes as ``progress``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path, board, is_first = folder / "curves.jsonl", _board(folder / "tensorboard"), True

    def write(now: Progress) -> None:
        nonlocal is_first
        if is_first and path.exists():
            _drop_from(path, now.step)
        is_first = False
        numbers = {"loss": now.losses.tolist(), "recall": now.recalls.tolist()}
        line = {"step": now.step, **{name: [_plain(value) for value in row] for name, row in numbers.items()}}
        with path.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(line | {"sessions_per_second": _plain(now.speed)}) + "\n")
        if board is not None:
            for name, row in numbers.items():
                for seed, value in enumerate(row):
                    if not math.isnan(value):
                        board.add_scalar(f"{name}/seed {seed}", value, now.step)

    try:
        yield write
    finally:
        if board is not None:
            board.close()


def _drop_from(path: pathlib.Path, step: int) -> None:
    """Keeps only the whole lines of earlier steps."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    whole = [line for line in lines if line.endswith("\n")]
    partial = path.with_suffix(".partial")
    partial.write_text("".join(line for line in whole if json.loads(line)["step"] < step), encoding="utf-8")
    os.replace(partial, path)


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else value


def _board(folder: pathlib.Path) -> Any:
    """A TensorBoard writer, or None."""
    try:
        import tensorboardX
    except ImportError:
        return None
    return tensorboardX.SummaryWriter(str(folder))
