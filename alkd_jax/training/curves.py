"""Learning curves on disk: one JSON line for each validation, and TensorBoard where it is installed."""

import contextlib
import json
import math
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

from alkd_jax.io import finite_or_none, write_text
from alkd_jax.training.results import Progress


@contextlib.contextmanager
def curve_log(folder: pathlib.Path) -> Iterator[Callable[[Progress], None]]:
    """Writes the progress of ``fit`` after each validation.

    ``FOLDER/curves.jsonl`` holds ``{"step", "loss": [S], "recall": [S], "sessions_per_second"}``, null for a seed that
    has stopped. A run that continues from a checkpoint repeats some steps; the earlier lines of these are removed.
    Where the package tensorboardX is installed, the same numbers are written to ``FOLDER/tensorboard``.

    Args:
        folder: the folder; it is created if it does not exist.

    Yields:
        The argument ``progress`` for :func:`alkd_jax.training.fit`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path, writer, is_first = folder / "curves.jsonl", _tensorboard_writer(folder / "tensorboard"), True

    def write(progress: Progress) -> None:
        nonlocal is_first
        if is_first and path.exists():
            _drop_lines_from(path, progress.step)
        is_first = False
        numbers = {"loss": progress.losses.tolist(), "recall": progress.recalls.tolist()}
        line = finite_or_none({"step": progress.step, **numbers, "sessions_per_second": progress.speed})
        with path.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(line, allow_nan=False) + "\n")
        if writer is not None:
            for name, row in numbers.items():
                for seed, value in enumerate(row):
                    if not math.isnan(value):
                        writer.add_scalar(f"{name}/seed {seed}", value, progress.step)

    try:
        yield write
    finally:
        if writer is not None:
            writer.close()


def _drop_lines_from(path: pathlib.Path, step: int) -> None:
    """Removes lines of this step or later ones, and a last line that was not written completely."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    complete = [line for line in lines if line.endswith("\n")]
    write_text(path, "".join(line for line in complete if json.loads(line)["step"] < step))


def _tensorboard_writer(folder: pathlib.Path) -> Any:
    """Returns a TensorBoard writer; None where tensorboardX is not installed."""
    try:
        import tensorboardX
    except ImportError:
        return None
    return tensorboardX.SummaryWriter(str(folder))
