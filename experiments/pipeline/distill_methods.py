"""How the methods train their students, from the outputs of the run's earlier stages.

Every function here takes a run, the lists to learn from, options of :func:`alkd_jax.training.fit`, and the tuned
options of the method.
"""

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

import alkd_jax as alkd
from alkd_jax import selection, training
from alkd_jax.checks import check_rates
from alkd_jax.data.profile_vectors import read_profiles
from alkd_jax.distillation import alkdrec, dsl, learned_gate, profiles
from alkd_jax.errors import shown
from alkd_jax.paper_settings import backbone_settings_of
from alkd_jax.registry import accepts
from alkd_jax.training.examples import last_item_examples

from .student_scores import student_scores

if TYPE_CHECKING:
    from .run import RunContext

RECALL_AT = 25
"""k of the validation recall of teacher, student and baselines; :meth:`RunContext.recall_at` bounds it."""


def fine_tuned(
    run: "RunContext",
    rankings: alkd.Rankings | None,
    options: Mapping[str, Any],
    tuned: Mapping[str, Any],
    *,
    purpose: int,
    equal_places: bool = False,
) -> training.FitResult:
    """Trains the run's students further, on lists or on their own labels.

    Args:
        run: a run with trained students.
        rankings: the lists to learn from; None for the labels of the training sessions.
        options: options of :func:`alkd_jax.training.fit`, among them the number of seeds.
        tuned: "learning_rate_scale", the factor of the backbone's learning rate, and "bounds" of
            :func:`alkd_jax.distillation.distill`.
        purpose: number of the random key.
        equal_places: whether all places of a list have the same weight.
    """
    train, validation, model = run.split("train"), run.split("validation"), run.model("student")
    student_params = jax.tree.map(lambda leaf: leaf[: options["seeds"]], run.params("student"))
    backbone = backbone_settings_of(run.settings.backbone)
    options = {
        "patience": 20,
        "recall_at": run.recall_at(backbone.distillation_recall_at),
        "learning_rate": backbone.distillation_learning_rate * tuned.get("learning_rate_scale", 1.0),
        **options,
    }
    key, list_loss = run.key(purpose), run.settings.list_loss
    if rankings is not None and not equal_places and list_loss != "bpr":
        return alkd.distill(key, model, student_params, train, validation, rankings, list_loss=list_loss, **options)
    options = {"loss": run.objective(model), **options}
    if rankings is None:
        options |= {"initial": student_params, "examples": last_item_examples(train)}
        return training.fit(key, model, train, validation, **options)
    rules = run.settings.rules
    bounds = alkdrec.RELEASED_BOUNDS if "bands" in rules else alkdrec.PAPER_BOUNDS
    options["bounds"] = (rankings.items.shape[1],) if equal_places else tuned.get("bounds", bounds)
    return alkd.distill(key, model, student_params, train, validation, rankings, released="lists" in rules, **options)


def gated(
    run: "RunContext",
    rankings: alkd.Rankings | None,
    options: Mapping[str, Any],
    tuned: Mapping[str, Any],
    *,
    purpose: int,
) -> training.FitResult:
    """Trains the run's students further on their labels, and on lists as far as a learned gate lets each through.

    Args:
        run: a run with trained students.
        rankings: the lists to learn from.
        options: options of :func:`alkd_jax.training.fit`, among them the number of seeds.
        tuned: options of :class:`alkd_jax.distillation.learned_gate.Options`.
        purpose: number of the random key.
    """
    assert rankings is not None
    train, model = run.split("train"), run.model("student")
    rows = train.rows_of(rankings.session_id)
    popularity = np.bincount(np.asarray(run.dataset.train_sequences.items), minlength=run.dataset.num_items + 1)
    # Only the sessions with a list have a gate, and are those over which its features are scaled.
    features = np.zeros((len(train), learned_gate.NUM_FEATURES), np.float32)
    uncertainty = np.asarray(selection.entropy(student_scores(run, rows)[1]))
    features[rows] = learned_gate.gate_features(train.take(rows), popularity.astype(np.float32), uncertainty)
    backbone = backbone_settings_of(run.settings.backbone)
    return learned_gate.distill(
        run.key(purpose),
        model,
        jax.tree.map(lambda leaf: leaf[: options["seeds"]], run.params("student")),
        train,
        run.split("validation"),
        rankings,
        features=features,
        options=learned_gate.Options(**tuned),
        loss=run.objective(model),
        learning_rate=backbone.distillation_learning_rate,
        **{"recall_at": run.recall_at(backbone.distillation_recall_at), **options},
    )


def check_tuned(tuned: Mapping[str, Any]) -> None:
    """Raises ValueError where an option of :func:`fine_tuned` is out of range."""
    check_rates(learning_rate_scale=tuned.get("learning_rate_scale", 1.0))
    bounds = tuned.get("bounds", (1,))
    if min(bounds) < 1 or list(bounds) != sorted(set(bounds)):
        raise ValueError(f"bounds is {shown(bounds)}; expected rising positions from 1")


def from_scratch(
    run: "RunContext",
    rankings: alkd.Rankings | None,
    options: Mapping[str, Any],
    tuned: Mapping[str, Any],
    *,
    module: ModuleType,
    with_sequences: bool = False,
) -> training.FitResult:
    """Trains new students with one of the baselines, with the random key of the plain student.

    Args:
        run: a run with a trained teacher.
        rankings: the lists to learn from; None for the conventional teacher, or for none (DSL).
        options: options of :func:`alkd_jax.training.fit`.
        tuned: options of the baseline.
        module: the baseline's module.
        with_sequences: whether the baseline reads the training sessions at full length.
    """
    model = run.model("wide" if module is dsl else "student")
    # The teacher is read only where it is needed, because DSL does not wait for it.
    teacher = () if module is dsl else (run.teacher() if rankings is None else rankings,)
    options = {"loss": run.objective(model), "options": module.Options(**tuned), **options}
    options["recall_at"] = run.recall_at(RECALL_AT)
    if with_sequences:
        options["sequences"] = run.dataset.train_sequences
    return module.distill(run.key(1), model, *teacher, run.split("train"), run.split("validation"), **options)


def profiled(
    run: "RunContext", rankings: alkd.Rankings | None, options: Mapping[str, Any], tuned: Mapping[str, Any]
) -> training.FitResult:
    """Trains new students with the vectors of the run's `profile_vectors`, with the random key of the plain student.

    Args:
        run: a run.
        rankings: None.
        options: options of :func:`alkd_jax.training.fit`.
        tuned: options of :class:`alkd_jax.distillation.profiles.Options`.

    Raises:
        ValueError: the file is damaged, or none of its sessions is a training session.
    """
    model = run.model("student")
    teacher = read_profiles(str(run.settings.profile_vectors))
    options = {"max_steps": run.settings.max_steps, "loss": run.objective(model), **options}
    options |= {"options": profiles.Options(**tuned), "recall_at": run.recall_at(RECALL_AT)}
    return profiles.distill(run.key(1), model, teacher, run.split("train"), run.split("validation"), **options)


def outside(
    run: "RunContext",
    rankings: alkd.Rankings | None,
    options: Mapping[str, Any],
    tuned: Mapping[str, Any],
    *,
    name: str,
    distill: Callable[..., Any],
    extras: frozenset[str],
) -> training.FitResult:
    """Trains new students with a user's method, with the random key of the plain student.

    Args:
        run: a run with a trained teacher.
        rankings: the lists to learn from; None where the function takes none.
        options: options of :func:`alkd_jax.training.fit`.
        tuned: nothing; a user's method has no options to tune.
        name: of the method.
        distill: the function, see :class:`alkd_jax.distillation.method.DistillationMethod`.
        extras: those of the parameters "rankings" and "dataset" that the function has.

    Raises:
        ValueError: the function does not return the result of a training.
    """
    model = run.model("student")
    options = {"loss": run.objective(model), **tuned, **options}
    options |= {key: value for key, value in {"rankings": rankings, "dataset": run.dataset}.items() if key in extras}
    if accepts(distill, 5, *options, "recall_at"):
        options["recall_at"] = run.recall_at(RECALL_AT)
    fitted = distill(run.key(1), model, run.teacher(), run.split("train"), run.split("validation"), **options)
    if not isinstance(fitted, training.FitResult):
        raise ValueError(f"{name} returned {type(fitted).__name__}; expected the FitResult of alkd_jax.training.fit")
    return fitted
