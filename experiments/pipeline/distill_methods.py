"""How each method trains its student, from the outputs of the run's earlier stages."""

import hashlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

import alkd_jax as alkd
from alkd_jax import baselines, training
from alkd_jax.distillation import de, dllm2rec, dsl, ftd, htd, rd, unkd
from alkd_jax.distillation.alkdrec import distill
from alkd_jax.io import read_json
from alkd_jax.llm.teachers import replay
from alkd_jax.paper_settings import backbone_settings_of
from alkd_jax.training.examples import last_item_examples

from .methods import BASELINES, DISTILLED, SELECTIONS, TUNED, role_of
from .run import RunContext, first_seed

_TEACHER_METHODS: Mapping[str, Any] = {"DE": de, "FTD": ftd, "HTD": htd, "unKD": unkd, "RD": rd}
"""Methods that distill the conventional teacher → their modules."""


def train_student(run: RunContext, method: str, rankings: alkd.Rankings | None, **options: Any) -> training.FitResult:
    """Trains the students of a method, those of all seeds in one program.

    Args:
        run: a run with trained teacher and student.
        method: one of `DISTILLED`.
        rankings: the lists that it learns from, as :func:`rankings_for` makes them.
        **options: further options of :func:`alkd_jax.training.fit`: progress, checkpoints.
    """
    options = {"seeds": run.settings.seeds, "max_steps": run.settings.max_steps, "mesh": run.mesh} | options
    train_method = from_scratch if method in BASELINES else fine_tuned
    return train_method(run, method, rankings, options, tuned=run.tuned_options(method))


def fine_tuned(
    run: RunContext,
    method: str,
    rankings: alkd.Rankings | None,
    options: Mapping[str, Any],
    *,
    tuned: Mapping[str, Any],
) -> training.FitResult:
    """Trains the run's students further, on lists or on their own labels.

    Args:
        run: a run with trained students.
        method: a selection, TR, or a control.
        rankings: the lists to learn from; None for the labels of the training sessions.
        options: options of :func:`alkd_jax.training.fit`, among them the number of seeds.
        tuned: "learning_rate_scale", the factor of the backbone's learning rate, and "bounds" of
            :func:`alkd_jax.distillation.distill`.
    """
    train, validation, model = run.split("train"), run.split("validation"), run.model("student")
    student_params = jax.tree.map(lambda leaf: leaf[: options["seeds"]], run.params("student"))
    loss, loss_inputs = run.objective(model)
    backbone = backbone_settings_of(run.settings.backbone)
    options = {
        "patience": 20,
        "recall_at": backbone.distillation_recall_at,
        "learning_rate": backbone.distillation_learning_rate * tuned.get("learning_rate_scale", 1.0),
        "loss": loss,
        "loss_inputs": loss_inputs,
        **options,
    }
    key = method_key(run, method)
    if rankings is None:
        options |= {"initial": student_params, "examples": last_item_examples(train)}
        return training.fit(key, model, train, validation, **options)
    options["bounds"] = (rankings.items.shape[1],) if method == "TR" else tuned.get("bounds")
    return distill(key, model, student_params, train, validation, rankings, released=run.released, **options)


def from_scratch(
    run: RunContext,
    method: str,
    rankings: alkd.Rankings | None,
    options: Mapping[str, Any],
    *,
    tuned: Mapping[str, Any],
) -> training.FitResult:
    """Trains new students with one of the baselines, with the random key of the plain student.

    Args:
        run: a run with a trained teacher.
        method: the baseline.
        rankings: the lists that DLLM2Rec learns from; None for the others.
        options: options of :func:`alkd_jax.training.fit`.
        tuned: options of the baseline.
    """
    train, validation, model = run.split("train"), run.split("validation"), run.model(role_of(method))
    loss, loss_inputs = run.objective(model)
    options = {**options, "loss": loss, "loss_inputs": loss_inputs, **tuned}
    key = run.key(1)
    if method == "DSL":
        return dsl.distill(key, model, train, validation, **options)
    if rankings is not None:
        return dllm2rec.distill(key, model, rankings, train, validation, **options)
    if method in ("unKD", "RD"):
        options |= {"sequences": run.dataset.train_sequences}
    teacher_model, teacher_params = run.model("teacher"), first_seed(run.params("teacher"))
    module = _TEACHER_METHODS[method]
    return module.distill(key, model, teacher_model, teacher_params, train, validation, **options)


def rankings_for(run: RunContext, method: str) -> alkd.Rankings | None:
    """Makes the lists that a method learns from; None for a method that needs none.

    Args:
        run: a run with trained teacher, selections and rankings.
        method: one of `DISTILLED`.
    """
    train = run.dataset.train
    if method == "Longer training" or (method in BASELINES and method != "DLLM2Rec"):
        return None
    if method == "TR":
        return run.candidates(train, num=50)
    selections = read_json(run.folder.path / "selection.json")
    if method in SELECTIONS or method == "DLLM2Rec":
        return llm_rankings(run, selections["Random" if method == "DLLM2Rec" else method])
    rankings = llm_rankings(run, selections["ALKDRec"])
    if method == TUNED:
        return rankings
    if method == "Shuffled lists":
        order = np.random.default_rng(run.settings.seed).permutation(len(rankings))
        return alkd.Rankings(rankings.session_id, rankings.items[order], rankings.mask[order])
    selected = train.take(np.isin(train.session_id, rankings.session_id))
    if method == "True labels":
        return alkd.Rankings.from_top_k(selected.session_id, np.asarray(selected.target)[:, None])
    if method == "Teacher lists":
        return run.candidates(selected, num=25)
    baseline = baselines.popularity if method == "Popularity lists" else baselines.co_occurrence
    all_rankings = baselines.held_out_lists(baseline, run.dataset.train_sequences, run.dataset.num_items, train, 25)
    return all_rankings.take(np.isin(all_rankings.session_id, rankings.session_id))


def llm_rankings(run: RunContext, session_id: list[int]) -> alkd.Rankings:
    """Reads lists from the stage "rankings", and puts the target first in a share of them, the run's `correction`."""
    rankings = replay.lookup_rankings(run.rankings(), np.asarray(session_id, np.int32))[0]
    return correct_rankings(rankings, run.dataset.train, run.settings.correction, seed=run.settings.seed)


def correct_rankings(rankings: alkd.Rankings, train: alkd.Sessions, share: float, *, seed: int) -> alkd.Rankings:
    """Puts the target first in some of the lists that do not hold it.

    Args:
        rankings: lists for training sessions.
        train: the training sessions.
        share: share of the lists without their session's target that are corrected; they are chosen at random.
        seed: seed of the choice.

    Reference:
        Du et al., ALKDRec, AAAI 2025, Figure 2b; Baykal et al., Robust active distillation, ICLR 2023.
    """
    target = np.asarray(train.target, np.int32)[train.rows_of(rankings.session_id)]
    lacks_target = np.flatnonzero(~(np.asarray(rankings.items) == target[:, None]).any(1))
    rows = np.random.default_rng(seed).permutation(lacks_target)[: round(share * len(lacks_target))]
    items, mask = np.asarray(rankings.items).copy(), np.asarray(rankings.mask).copy()
    items[rows, 1:], mask[rows, 1:] = items[rows, :-1], mask[rows, :-1]
    items[rows, 0], mask[rows, 0] = target[rows], True
    return alkd.Rankings(rankings.session_id, items, mask)


def digest_of(rankings: alkd.Rankings) -> str:
    """Returns the SHA-256 of the sessions and items of some lists."""
    return hashlib.sha256(np.asarray(rankings.session_id).tobytes() + np.asarray(rankings.items).tobytes()).hexdigest()


def method_key(run: RunContext, method: str) -> jax.Array:
    """Returns the random key of a method's training; a tuned method has the key of the method with defaults."""
    return run.key(20 + DISTILLED.index("ALKDRec" if method == TUNED else method))
