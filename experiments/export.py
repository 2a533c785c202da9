"""Ships one student of a finished run as a folder, ready for `experiments.serve`.

    python -m experiments.export --run runs/ml-fpmc --method ALKDRec --out student

Of the run's seeds, the one that was best on validation is taken.
"""

import dataclasses
import pathlib
import warnings
from typing import Any

import jax
import tyro

from alkd_jax.serving import export

from .pipeline.distill_methods import role_of
from .pipeline.methods import trained_methods
from .pipeline.run import OpenRun
from .reporting.console import cli_errors, console


@dataclasses.dataclass(frozen=True)
class Shipping:
    """What is shipped.

    Attributes:
        run: folder of a finished run in clean mode.
        out: folder to write; must not be there yet.
        method: whose student: Student, Teacher, or a method that the run distilled.
        seed_index: which of the run's seeds, from 0; default the best on validation.
        dtype: how the weights are stored: float32, or float16 for half the size.
        list_length: how many items the compiled forms return.
    """

    run: pathlib.Path
    out: pathlib.Path
    method: str = "ALKDRec"
    seed_index: int | None = None
    dtype: str = "float32"
    list_length: int = 100


def ship(asked: Shipping) -> None:
    """Writes the folder.

    Raises:
        ValueError: the run is not one of a clean mode that holds this method and seed, or the folder exists.
    """
    if asked.out.exists():
        raise ValueError(f"{asked.out} exists; expected a new folder")
    run = OpenRun.reopen(asked.run, readonly=True)
    if run.released:
        raise ValueError(
            f"{asked.run} is a run in released mode, whose students read item 1 as padding; ship a clean one"
        )
    made = trained_methods(run.settings.asked_methods)
    if asked.method not in made:
        raise ValueError(f"--method is {asked.method!r}; this run made {', '.join(made)}")
    place = made[asked.method]
    best = run.array(f"{place}.history.npz", "best_metric")
    index = int(best.argmax()) if asked.seed_index is None else asked.seed_index
    if not 0 <= index < len(best):
        raise ValueError(f"--seed-index is {index}; expected 0..{len(best) - 1}")
    params = jax.tree.map(lambda leaf: leaf[index], run.params(place))
    told = f"{asked.method}, seed {index} (validation recall {best[index]:.4f})"
    model = run.model(role_of(asked.method))
    write_student(asked.out, told, model, params, run.dataset, dtype=asked.dtype, list_length=asked.list_length)


def write_student(out: pathlib.Path, told: str, *student: Any, **options: Any) -> None:
    """Writes the folder, and says what is in it and how to serve it; arguments as of `alkd.export.save`."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        export.save(out, *student, **options)
    for warning in caught:
        console.print(str(warning.message), style="yellow", markup=False, highlight=False)
    console.print(f"{told} in {out}; serve it with", markup=False, highlight=False)
    console.print(f"python -m experiments.serve --model {out} --port 8000", markup=False, highlight=False)


def main() -> None:
    """Entry point."""
    with cli_errors():
        ship(tyro.cli(Shipping, description=__doc__))


if __name__ == "__main__":
    main()
