"""A run whose language model is to be asked: the teacher, and the sessions and candidates that it ranks."""

import contextlib
import dataclasses
from collections.abc import Iterator

import numpy as np

import alkd_jax as alkd
from alkd_jax.llm.ledger import Budget
from alkd_jax.llm.store import Store
from alkd_jax.llm.teachers import OnlineTeacher

from . import compile_cache, llm_files, llm_settings
from .llm_options import LLMSettings
from .stages import Run


@dataclasses.dataclass(frozen=True)
class AskedRun:
    """A run with its open store.

    Attributes:
        dataset: of the run.
        store: of the answers.
        teacher: asks the model.
        sessions: that the model ranks, each once.
        candidates: ``[M, C]`` of each session.
    """

    dataset: alkd.Dataset
    store: Store
    teacher: OnlineTeacher
    sessions: alkd.Sessions
    candidates: np.ndarray


@contextlib.contextmanager
def open_run(settings: LLMSettings, *, budget: Budget | None = None, readonly: bool = False) -> Iterator[AskedRun]:
    """Opens a run and its store, after the stage that computes the candidates.

    Args:
        settings: server, model and limits.
        budget: in place of the one in the settings.
        readonly: run no stage, so that the candidates must be there.

    Raises:
        ValueError: the folder holds no run, a stage before the candidates is missing, or a setting is wrong.
    """
    compile_cache.enable()
    run = Run.reopen(settings.run, readonly=readonly)
    if not readonly:
        run.candidates_stage()
    with llm_files.open_store(settings.run) as store:
        teacher = llm_settings.online_teacher(settings, store, run.dataset, budget=budget)
        sessions, candidates = llm_settings.sessions_to_rank(settings.run, run.dataset)
        yield AskedRun(run.dataset, store, teacher, sessions, candidates)
