"""The file `tuning.json` of a run: the options that `experiments.tune` chose, or that a user wrote into it."""

import pathlib
from collections.abc import Mapping
from typing import Any

from alkd_jax.errors import shown
from alkd_jax.io import read_object
from alkd_jax.registry import is_outside

from .methods import METHODS
from .stored_values import fits

TUNING_FILE = "tuning.json"


def read_tuning(run: pathlib.Path) -> dict[str, Any]:
    """Reads the tuning of a run.

    Args:
        run: the run's folder.

    Returns:
        Method → what `experiments.tune` writes; empty where nothing was tuned.

    Raises:
        ValueError: a method or an option is unknown, a value is out of range, or the options chosen are not those of
            the best trial; the error names the file, the method and the option.
    """
    file = run / TUNING_FILE
    if not file.exists():
        return {}
    results = read_object(file)
    for method, tuning in results.items():
        place = f"{file}: {shown(method)}"
        match tuning:
            case {"chosen": {**chosen}, "from": str()}:
                check_options(place, method, chosen)
            case {"chosen": {**chosen}, "trials": [_, *_] as trials, "seeds": int()}:
                check_options(place, method, chosen)
                _check_trials(place, method, chosen, trials)
            case _:
                raise ValueError(f"{place} is {shown(tuning)}; expected what experiments.tune writes")
    return results


def check_options(place: str, method: str, options: Mapping[Any, Any]) -> None:
    """Checks the options of a method.

    Args:
        place: where they stand, in words.
        method: name of the method; the options of one from outside are its own.
        options: option → value.

    Raises:
        ValueError: the method or an option is unknown, or a value has another type or is out of range.
    """
    if is_outside(method):
        return
    if method not in METHODS:
        raise ValueError(f"{place} is no method; expected one of {', '.join(METHODS)}")
    grid = METHODS[method].grid
    for name, value in options.items():
        if name not in grid:
            raise ValueError(f"{place} has an option {shown(name)}; expected {', '.join(grid) or 'none'}")
        if not _is_like(value, grid[name][0]):
            raise ValueError(f"{place}: {name} is {shown(value)}; expected a value such as {grid[name][0]!r}")
    try:
        # JSON may have an integer for any number.
        METHODS[method].check({name: type(grid[name][0])(value) for name, value in options.items()})
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from error


def _is_like(value: Any, example: Any) -> bool:
    """Whether a value has the type of another one; sequences may differ in length."""
    if isinstance(example, tuple):
        return isinstance(value, list | tuple) and bool(value) and all(_is_like(part, example[0]) for part in value)
    return fits(value, type(example))


def _check_trials(place: str, method: str, chosen: Mapping[Any, Any], trials: list[Any]) -> None:
    for trial in trials:
        match trial:
            case {"options": {**options}, "recall@10": float() | int() as recall} if 0 <= recall <= 1:
                check_options(place, method, options)
            case _:
                raise ValueError(f"{place} has the trial {shown(trial)}; expected its options and its recall@10")
    best = max(trials, key=lambda trial: trial["recall@10"])["options"]
    if chosen != best:
        raise ValueError(
            f"{place}: chosen is {shown(chosen)}; expected {shown(best)}, the options of the best trial, or "
            '"from": "WHERE" in place of the trials of options chosen elsewhere'
        )
