"""Fixtures of the commands that ask a language model."""

import numpy as np
import pytest

from alkd_jax.io import write_json
from alkd_jax.types import Rankings
from experiments import query_llm
from experiments.pipeline.settings import Settings
from experiments.pipeline.stages import Run
from tests.helpers import command_calls


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A run before the paid stage; the candidates of its teacher and student are made up, and nothing is trained."""
    run = Run.open(Settings("synthetic", "fpmc", tmp_path / "run", seeds=1, selection="own", teacher="openai"))
    ids = np.asarray(run.dataset.train.session_id)
    write_json(run.folder.path / "selection.json", {"Random": ids[:12].tolist(), "ALKDRec": ids[8:20].tolist()})
    done = {"digest": "d", "outputs": [], "seconds": 0.0}
    write_json(run.folder.path / "stages.json", {"teacher": done, "selection": done})

    def sampled_candidates(run, sessions, *, num=50, name="teacher"):
        rows = [np.setdiff1d(np.arange(1, run.dataset.num_items + 1), row)[:num] for row in np.asarray(sessions.items)]
        return Rankings.from_top_k(np.asarray(sessions.session_id), np.stack(rows))

    monkeypatch.setattr(Run, "candidates", sampled_candidates)
    return run.folder.path


@pytest.fixture
def command(folder, monkeypatch, capsys):
    """A function that calls a command on the folder and returns its exit status and output."""

    def call(text, *, main=query_llm.main, run="--run"):
        return command_calls.call(main, [*text.split(), run, folder], monkeypatch, capsys)

    return call
