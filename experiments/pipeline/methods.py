"""The methods by name: what each learns from and how it is trained, and which names stand for several methods."""

import dataclasses
import functools
import zlib
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeAlias

import alkd_jax as alkd
from alkd_jax import training
from alkd_jax.distillation import de, dllm2rec, dsl, ftd, htd, learned_gate, profiles, rd, unkd
from alkd_jax.registry import Registry, accepts, is_outside, parameter_names, path_safe

from .active_selections import ACTIVE_SELECTIONS
from .distill_methods import check_tuned, fine_tuned, from_scratch, gated, outside, profiled
from .method_lists import (
    all_teacher_lists,
    baseline_lists,
    llm_rankings,
    shuffled_lists,
    teacher_lists,
    true_labels,
)
from .session_selection import PAPER_SELECTIONS, SELECTIONS

if TYPE_CHECKING:
    from .run import RunContext

LLM, TEACHER, NEITHER, PROFILED = "LLM lists", "recommender teacher", "control, or DSL", "profiles of sessions"
"""What a method's students learn from."""

TUNED = "Tuned ALKDRec"
"""ALKDRec with options tuned as the baselines' are; ALKDRec itself has the paper's options."""

PROFILES = "Profiles"
"""The method that learns from vectors of sessions, `--profile-vectors`."""

Train: TypeAlias = Callable[..., training.FitResult]
"""Function of a run, the lists, options of `training.fit` and tuned options, see `pipeline.distill_methods`."""


@dataclasses.dataclass(frozen=True)
class Method:
    """A method that trains a student.

    Attributes:
        learns_from: one of `LLM`, `TEACHER`, `PROFILED` and `NEITHER`.
        train: the function that trains its students.
        lists: function of a run that makes the lists it learns from; None for a method that needs none.
        selection: the selection whose sessions the LLM ranks for it; None for a method that asks the LLM nothing.
        is_paid: whether it is trained on answers of the LLM.
        role: its model: the "student", or the "wide" one, the student's backbone in the teacher's width, which DSL
            makes sparse.
        grid: option → the values to try in tuning, the default first.
        check: function of tuned options that raises ValueError where one is out of range.
    """

    learns_from: str
    train: Train
    lists: Callable[["RunContext"], alkd.Rankings] | None = None
    selection: str | None = None
    is_paid: bool = False
    role: str = "student"
    grid: Mapping[str, Sequence[Any]] = dataclasses.field(default_factory=dict)
    check: Callable[[Mapping[str, Any]], object] = dict


def _selection_method(name: str, purpose: int) -> Method:
    """Returns the method that distills the LLM's lists for the sessions of a selection."""
    lists = functools.partial(llm_rankings, selection=name)
    return Method(LLM, functools.partial(fine_tuned, purpose=purpose), lists, name, is_paid=True)


def _control(purpose: int, lists: Callable[["RunContext"], alkd.Rankings] | None, *, is_paid: bool = False) -> Method:
    """Returns ALKDRec's distillation with other lists, or without lists."""
    train = functools.partial(fine_tuned, purpose=purpose)
    return Method(NEITHER, train, lists, None if lists is None else "ALKDRec", is_paid)


def _baseline(module: ModuleType, learns_from: str, *, sequences: bool = False, **fields: Any) -> Method:
    """Returns a method of Table 1 that trains new students."""
    train = functools.partial(from_scratch, module=module, with_sequences=sequences)
    return Method(learns_from, train, check=lambda tuned: module.Options(**tuned), **fields)


CONTROLS: Mapping[str, Method] = {
    # The student is trained further on its own labels.
    "Longer training": _control(26, None),
    # ALKDRec's sessions with their true next item in place of a list.
    "True labels": _control(27, true_labels),
    # ALKDRec's sessions with the conventional teacher's top 25.
    "Teacher lists": _control(28, teacher_lists),
    # ALKDRec's sessions with the lists permuted among them.
    "Shuffled lists": _control(29, shuffled_lists, is_paid=True),
    # ALKDRec's sessions, each with the list of the most popular items.
    "Popularity lists": _control(30, functools.partial(baseline_lists, baseline="popularity")),
    # ALKDRec's sessions with the items that co-occur with theirs in other sessions.
    "Co-occurrence lists": _control(31, functools.partial(baseline_lists, baseline="co_occurrence")),
}
"""Controls that the paper does not have: the same distillation, with something else in place of ALKDRec's lists."""

BASELINES: Mapping[str, Method] = {
    "DE": _baseline(de, TEACHER, grid={"weight": (0.01, 0.001, 0.005, 0.05, 0.1), "num_experts": (30, 5, 10, 20)}),
    "FTD": _baseline(ftd, TEACHER, grid={"weight": (0.001, 1e-6, 3e-6, 1e-5, 3e-5, 1e-4, 3e-4, 1e-2)}),
    "HTD": _baseline(
        htd,
        TEACHER,
        grid={"weight": (0.001, 1e-4, 3e-4, 3e-3, 1e-2), "topology": (0.5, 0.1, 0.9), "num_groups": (30, 10, 20)},
    ),
    "unKD": _baseline(unkd, TEACHER, sequences=True, grid={"weight": (1.0, 0.1, 0.5, 2.0), "num_groups": (4, 2)}),
    "DSL": _baseline(
        dsl,
        NEITHER,
        role="wide",
        grid={"density": (0.1,), "every": (100, 50, 200), "initial_ratio": (0.5, 0.3, 0.7)},
    ),
    "DLLM2Rec": _baseline(
        dllm2rec,
        LLM,
        lists=functools.partial(llm_rankings, selection="Random"),
        selection="Random",
        is_paid=True,
        grid={"weight": (0.8, 0.1, 0.3, 2.0), "length": (10, 25)},
    ),
    "RD": _baseline(rd, TEACHER, sequences=True, grid={"weight": (1.0, 0.1, 0.3, 3.0), "length": (10, 25)}),
}
"""The baselines of Table 1, and RD."""


ACTIVE: Mapping[str, Method] = {
    **{name: _selection_method(name, 50 + number) for number, name in enumerate(ACTIVE_SELECTIONS)},
    # Random sessions, whose lists are weighted by a gate that is trained with the student.
    "Learned gate": Method(
        LLM,
        functools.partial(gated, purpose=60),
        functools.partial(llm_rankings, selection="Random"),
        "Random",
        is_paid=True,
        grid={"weight": (1.0, 0.1, 0.3, 3.0), "share": (0.5, 0.2, 0.8)},
        check=lambda tuned: learned_gate.Options(**tuned),
    ),
}
"""Ordinary active learning, beside the paper's selections."""


def _adopt(name: str, found: Any) -> Method | None:
    """Returns the method of a user's function, which distills or, if it takes ``num``, selects sessions."""
    if SELECTIONS.adopt(name, found) is not None:
        return _selection_method(name, zlib.crc32(f"training {name}".encode()))
    extras = parameter_names(found) & {"rankings", "dataset"}
    if not accepts(found, 5, "seeds", "max_steps", "loss", "mesh", "precision", "progress", "checkpoints", *extras):
        return None
    train = functools.partial(outside, name=name, distill=found, extras=extras)
    if "rankings" in extras:
        return Method(LLM, train, llm_rankings, "ALKDRec", is_paid=True)
    return Method(TEACHER, train)


METHODS = Registry[Method](
    "a name in --methods",
    {
        **{name: _selection_method(name, 20 + number) for number, name in enumerate(PAPER_SELECTIONS)},
        # The conventional teacher's top 50 for all sessions.
        "TR": Method(TEACHER, functools.partial(fine_tuned, purpose=25, equal_places=True), all_teacher_lists),
        **CONTROLS,
        **BASELINES,
        # The random key is that of ALKDRec.
        TUNED: dataclasses.replace(
            _selection_method("ALKDRec", 21),
            grid={"learning_rate_scale": (1.0, 0.3, 3.0), "bounds": ((5, 15, 25), (10, 25), (25,))},
            check=check_tuned,
        ),
        **ACTIVE,
        PROFILES: Method(
            PROFILED,
            functools.partial(profiled),
            grid={"alpha": (0.4, 0.1, 0.65), "first_steps": (0.1, 0.03, 0.3)},
            check=lambda tuned: profiles.Options(**tuned),
        ),
    },
    "distill(key, model, teacher, train, validation, **fit_options) or select(key, sessions, difficulty, *, num)",
    _adopt,
)
"""Name → method that trains a student."""

SETS: Mapping[str, tuple[str, ...]] = {
    "short": ("Random", "ALKDRec"),
    "table1": (*BASELINES, "ALKDRec", TUNED),
    "table2": ("TR", *PAPER_SELECTIONS),
    "controls": ("ALKDRec", *CONTROLS),
    "active": ("Random", "ALKDRec", *ACTIVE),
    "all": tuple(name for name in METHODS if name not in (*ACTIVE, PROFILES)),
}
"""Name of a set of methods → its methods."""


def parse_methods(text: str) -> tuple[str, ...]:
    """Parses names of methods and of sets of methods, separated by commas.

    Args:
        text: the names; a user's method is named ``package.module:attribute``.

    Returns:
        The methods, each once, in the order of `METHODS`, and then those from outside in the given order.

    Raises:
        ValueError: a name is unknown, or there is none.
    """
    chosen: dict[str, None] = {}
    for name in filter(None, (part.strip() for part in text.split(","))):
        if name not in SETS:
            METHODS.find(name)
        chosen |= dict.fromkeys(SETS.get(name, (name,)))
    if not chosen:
        raise ValueError(f"--methods is {text!r}; expected at least one of {', '.join((*SETS, *METHODS))}")
    return (*(name for name in METHODS if name in chosen), *outside_names(chosen))


def outside_names(names: Mapping[str, Any] | Sequence[str]) -> tuple[str, ...]:
    """Returns the names of parts from outside."""
    return tuple(name for name in names if is_outside(name))


def trained_methods(methods: tuple[str, ...]) -> dict[str, str]:
    """Returns method → path of its parameters in the run's folder, for these methods, student and teacher."""
    return {"Student": "student", "Teacher": "teacher"} | {
        method: f"distilled/{path_safe(method)}" for method in methods
    }


def stage_of(method: str) -> str:
    """Returns the name of the stage that trains a method's students."""
    return f"distill-{path_safe(method)}"


def reads_list_loss(method: str) -> bool:
    """Whether a method distills lists by the loss of the run's settings."""
    found = METHODS.find(method)
    if not isinstance(found.train, functools.partial) or found.train.func is not fine_tuned:
        return False
    return found.lists is not None and not found.train.keywords.get("equal_places")


def role_of(method: str) -> str:
    """Returns the model of a method, of "Student" or of "Teacher": "student", "teacher" or "wide"."""
    return method.lower() if method in ("Student", "Teacher") else METHODS.find(method).role


def needed_selections(methods: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the selections whose sessions the LLM ranks for these methods; ALKDRec's if they need none."""
    needed = [selection for method in methods if (selection := METHODS.find(method).selection)] or ["ALKDRec"]
    return (*(name for name in SELECTIONS if name in needed), *outside_names(needed))


def lists_for(run: "RunContext", method: str) -> alkd.Rankings | None:
    """Makes the lists that a method learns from; None for a method that needs none.

    Args:
        run: a run with trained teacher, selections and rankings.
        method: name of the method.
    """
    lists = METHODS.find(method).lists
    return None if lists is None else lists(run)


def train_students(
    run: "RunContext",
    method: str,
    rankings: alkd.Rankings | None,
    *,
    tuned: Mapping[str, Any] | None = None,
    **options: Any,
) -> training.FitResult:
    """Trains the students of a method, those of all seeds in one program.

    Args:
        run: a run with trained teacher and student.
        method: name of the method.
        rankings: the lists that it learns from, as :func:`lists_for` makes them.
        tuned: options of the method; by default those that `experiments.tune` chose, if any.
        **options: options of :func:`alkd_jax.training.fit` that differ from the run's, or are further ones.
    """
    tuned = run.tuned_options(method) if tuned is None else tuned
    return METHODS.find(method).train(run, rankings, run.fit_options | options, tuned)
