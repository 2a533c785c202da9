"""How each method makes its student, from what the run's earlier hops have left."""

import hashlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

import alkd_jax as alkd
from alkd_jax import baselines, training
from alkd_jax.distillation import alkdrec as lists_distillation
from alkd_jax.distillation import de, dllm2rec, dsl, ftd, htd, rd, unkd
from alkd_jax.io import read_json
from alkd_jax.llm.teachers import replay
from alkd_jax.training.examples import last_item_examples

from .methods import BASELINES, DISTILLATION_RATE, DISTILLED, SELECTIONS, TUNED, role_of
from .run import OpenRun, first_seed

_GUIDED: Mapping[str, Any] = {"DE": de, "FTD": ftd, "HTD": htd, "unKD": unkd, "RD": rd}


def distilled(run: OpenRun, method: str, lists: alkd.Rankings | None, **options: Any) -> training.FitResult:
    """Makes the student of a method, every seed in one program.

    Args:
        run: with teacher and student.
        method: one of `DISTILLED`.
        lists: what it learns from, as :func:`lists_of` gives them.
        **options: of :func:`alkd_jax.training.fit`: progress, checkpoints.
    """
    common = {"seeds": run.settings.seeds, "max_steps": run.settings.max_steps, "mesh": run.mesh} | options
    train = from_scratch if method in BASELINES else fine_tuned
    return train(run, method, lists, common, tuned=run.tuned(method))


def fine_tuned(
    run: OpenRun,
    method: str,
    lists: alkd.Rankings | None,
    options: Mapping[str, Any],
    *,
    tuned: Mapping[str, Any],
) -> training.FitResult:
    """Trains the run's students on.

    Args:
        run: with a student.
        method: a selection, TR, or a control.
        lists: to learn; without, its own labels.
        options: of :func:`alkd_jax.training.fit`, the number of seeds among them.
        tuned: "rate", times the backbone's learning rate, and "bounds" of :func:`alkd_jax.distillation.alkdrec.distil`.
    """
    rate = DISTILLATION_RATE[run.settings.backbone] * tuned.get("rate", 1.0)
    recall_at = lists_distillation.RECALL_AT[run.settings.backbone]
    options = {"patience": 20, "recall_at": recall_at, "learning_rate": rate, **options}
    model, data = run.model("student"), (run.split("train"), run.split("validation"))
    student = jax.tree.map(lambda leaf: leaf[: options["seeds"]], run.params("student"))
    loss, loss_inputs = run.objective(model)
    options |= {"loss": loss, "loss_inputs": loss_inputs}
    key = method_key(run, method)
    if lists is None:
        return training.fit(key, model, *data, initial=student, examples=last_item_examples(data[0]), **options)
    bounds = (lists.items.shape[1],) if method == "TR" else tuned.get("bounds")
    return lists_distillation.distill(
        key, model, student, *data, lists, released=run.released, bounds=bounds, **options
    )


def from_scratch(
    run: OpenRun,
    method: str,
    lists: alkd.Rankings | None,
    options: Mapping[str, Any],
    *,
    tuned: Mapping[str, Any],
) -> training.FitResult:
    """Trains a student anew under one of the baselines; the key is the plain student's.

    Args:
        run: with a teacher.
        method: the baseline.
        lists: that DLLM2Rec learns from; the others need none.
        options: of :func:`alkd_jax.training.fit`.
        tuned: options of the baseline's own.
    """
    key, data = run.key(1), (run.split("train"), run.split("validation"))
    model = run.model(role_of(method))
    base, loss_inputs = run.objective(model)
    options = {**options, "base": base, "loss_inputs": loss_inputs, **tuned}
    if method == "DSL":
        return dsl.distill(key, model, *data, **options)
    if lists is not None:
        return dllm2rec.distill(key, model, lists, *data, **options)
    if method in ("unKD", "RD"):
        options |= {"sequences": run.dataset.train_sequences}
    teacher = run.model("teacher"), first_seed(run.params("teacher"))
    return _GUIDED[method].distil(key, model, *teacher, *data, **options)


def lists_of(run: OpenRun, method: str) -> alkd.Rankings | None:
    """The lists a method learns from; None for one that needs none.

    Args:
        run: with teacher, selections and rankings.
        method: one of `DISTILLED`.
    """
    if method == "Longer training" or (method in BASELINES and method != "DLLM2Rec"):
        return None
    if method == "TR":
        train = run.dataset.train
        return as_rankings(train, run.candidates(train, num=50))
    chosen = read_json(run.folder.path / "selection.json")
    if method in SELECTIONS or method == "DLLM2Rec":
        return recorded_lists(run, chosen["Random" if method == "DLLM2Rec" else method])
    lists = recorded_lists(run, chosen["ALKDRec"])
    if method == TUNED:
        return lists
    if method == "Shuffled lists":
        order = np.random.default_rng(run.settings.seed).permutation(len(lists))
        return alkd.Rankings(lists.session_id, lists.items[order], lists.mask[order])
    train = run.dataset.train
    asked = jax.tree.map(lambda leaf: leaf[np.isin(train.session_id, lists.session_id)], train)
    if method == "True labels":
        return as_rankings(asked, np.asarray(asked.target)[:, None])
    if method == "Teacher lists":
        return as_rankings(asked, run.candidates(asked, num=25))
    counted = baselines.popularity if method == "Popularity lists" else baselines.co_occurrence
    everyone = baselines.held_out_lists(counted, run.dataset.train_sequences, run.dataset.num_items, train, 25)
    return jax.tree.map(lambda leaf: leaf[np.isin(everyone.session_id, lists.session_id)], everyone)


def recorded_lists(run: OpenRun, session_id: list[int]) -> alkd.Rankings:
    """What the LLM, or its stand-in, said of these sessions."""
    lists = replay.replay(run.rankings(), np.asarray(session_id, np.int32))[0]
    return corrected(lists, run.dataset.train, run.settings.correction, seed=run.settings.seed)


def corrected(lists: alkd.Rankings, train: alkd.Sessions, share: float, *, seed: int) -> alkd.Rankings:
    """Lists of which a share of those without the session's next item, drawn at random, have it put first.

    Reference:
        Du et al., ALKDRec, AAAI 2025, Figure 2b; Baykal et al., Robust active distillation, ICLR 2023.
    """
    target = dict(zip(np.asarray(train.session_id).tolist(), np.asarray(train.target).tolist(), strict=True))
    wanted = np.array([target[session] for session in np.asarray(lists.session_id).tolist()], np.int32)
    missed = np.flatnonzero(~(np.asarray(lists.items) == wanted[:, None]).any(1))
    rows = np.random.default_rng(seed).permutation(missed)[: round(share * len(missed))]
    items, mask = np.asarray(lists.items).copy(), np.asarray(lists.mask).copy()
    items[rows, 1:], mask[rows, 1:] = items[rows, :-1], mask[rows, :-1]
    items[rows, 0], mask[rows, 0] = wanted[rows], True
    return alkd.Rankings(lists.session_id, items, mask)


def as_rankings(sessions: alkd.Sessions, items: np.ndarray) -> alkd.Rankings:
    """Lists of items, 0 where there are fewer, one a session."""
    items = np.asarray(items, np.int32)
    return alkd.Rankings(np.asarray(sessions.session_id), items, items != alkd.PAD)


def digest(lists: alkd.Rankings) -> str:
    """The same for the same lists of the same sessions."""
    return hashlib.sha256(np.asarray(lists.session_id).tobytes() + np.asarray(lists.items).tobytes()).hexdigest()


def method_key(run: OpenRun, method: str) -> jax.Array:
    """The random key of a method's distillation; tuning changes options and no draw."""
    return run.key(20 + DISTILLED.index("ALKDRec" if method == TUNED else method))
