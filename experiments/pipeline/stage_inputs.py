"""The options that each stage of a run depends on; a finished stage runs again only when one of them has changed."""

from collections.abc import Mapping
from typing import Any

from alkd_jax import paper_settings
from alkd_jax.io import digest_of
from alkd_jax.registry import source_digest

from . import item_channels
from .active_selections import ACTIVE_SELECTIONS, READS_ANSWERS, selection_options
from .backbone_defaults import defaults_of
from .llm_options import DEFAULT_MIN_VALID
from .methods import PROFILES, needed_selections, outside_names, reads_list_loss, stage_of
from .protocols import protocol_inputs
from .settings import Settings
from .training_free import training_free_inputs

PATIENCE = {"teacher": 20, "student": 10}
"""Role → number of validations without improvement after which its training stops."""


def stage_inputs(settings: Settings, dataset: str, tuned: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Returns stage → its options, plain JSON values.

    Args:
        settings: of the run.
        dataset: its name, which decides the loss.
        tuned: method → the options that `experiments.tune` chose.
    """
    selections = needed_selections(settings.method_names)
    training: dict[str, Any] = {"seeds": settings.seeds, "max_steps": settings.max_steps}
    if (loss := paper_settings.settings_of(dataset).loss(settings.backbone)) != "bpr":
        training["loss"] = loss
    training |= _sources_of(settings.backbone)
    own = {"teacher": _teacher_inputs(settings), "student": item_channels.inputs(settings)}
    dims = {"teacher": settings.teacher_dim, "student": settings.student_dim}
    rankings: dict[str, Any] = {"teacher": settings.resolved_teacher, "accuracy": settings.accuracy}
    if settings.rankings is not None:
        rankings["file"] = digest_of(settings.rankings)
    if settings.min_valid != DEFAULT_MIN_VALID:
        rankings["min_valid"] = settings.min_valid
    return {
        "training_free": training_free_inputs(settings.protocol),
        **{role: training | {"dim": dim, "patience": PATIENCE[role]} | own[role] for role, dim in dims.items()},
        "difficulty": {},
        "policy": {
            "solver": "closed form" if "policy" in settings.rules else "exact",
            "ratios": list(settings.ratios),
        },
        "selection": {"selection": settings.resolved_selection, "budget": settings.resolved_budget}
        | _active_inputs(settings, selections, rankings)
        | _sources_of(*outside_names(selections)),
        "candidates": {"candidates": settings.candidates, "selections": list(selections)},
        "rankings": rankings | _sources_of(settings.resolved_teacher),
        "lists": {"methods": list(settings.method_names), "correction": settings.correction},
        **{
            stage_of(method): {"max_steps": settings.max_steps}
            | dict(tuned.get(method, {}))
            | _list_loss_of(method, settings)
            | _profiles_of(method, settings)
            | _sources_of(method)
            for method in settings.method_names
        },
        "ranks": {"methods": list(settings.method_names)} | protocol_inputs(settings.protocol),
        "list_metrics": {"methods": list(settings.method_names)} | protocol_inputs(settings.protocol),
    }


def _active_inputs(settings: Settings, needed: tuple[str, ...], rankings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what the selections by active learning depend on; nothing where none is needed."""
    active = [name for name in needed if name in ACTIVE_SELECTIONS]
    if not active:
        return {}
    inputs: dict[str, Any] = {"selections": active, **selection_options(settings, needed)}
    if set(active) & set(READS_ANSWERS):
        # Other stages refuse to be replaced where one of these changes; the selection only follows them.
        distilled = {"max_steps": settings.max_steps, "list_loss": settings.list_loss, "ratios": list(settings.ratios)}
        answers = dict(rankings) | {"candidates": settings.candidates} | _sources_of(settings.resolved_teacher)
        inputs["lists"] = {**answers, **distilled}
    return inputs


def _teacher_inputs(settings: Settings) -> dict[str, Any]:
    """Returns what the training of a teacher depends on, where it differs from that of the paper's teachers."""
    backbone = settings.backbone_of("teacher")
    published = defaults_of(backbone, parallel=False)
    inputs: dict[str, Any] = {} if backbone == settings.backbone else {"backbone": backbone} | _sources_of(backbone)
    if published.targets != "last":
        inputs |= {"targets": published.targets, "loss": published.loss, "num_negatives": published.num_negatives}
    return inputs


def _list_loss_of(method: str, settings: Settings) -> dict[str, Any]:
    """Returns the loss of a method's lists, where it is another one than the paper's."""
    is_own = settings.list_loss != "bpr" and reads_list_loss(method)
    return {"list_loss": settings.list_loss} if is_own else {}


def _profiles_of(method: str, settings: Settings) -> dict[str, Any]:
    """Returns the file of profiles of the method that reads it."""
    if method != PROFILES or settings.profile_vectors is None:
        return {}
    return {"profiles": digest_of(settings.profile_vectors)}


def _sources_of(*names: str) -> dict[str, Any]:
    """Returns the inputs of a stage that runs again when the file of a part from outside changes; none for others."""
    sources = {name: source_digest(name) for name in outside_names(names)}
    return {"sources": sources} if sources else {}
