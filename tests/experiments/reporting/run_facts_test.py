"""The command in a report makes the same run again."""

import pathlib
import shlex

import pytest

from experiments.pipeline.command_line import parse
from experiments.pipeline.settings import Settings
from experiments.reporting import run_facts


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"seeds": 3, "methods": "short,Shuffled lists", "ratios": (2, 2, 1), "correction": 0.5, "accept_missing": True},
        {"teacher": "openai", "model": "a model", "budget_usd": "1.5", "extra_body": '{"top_k": 1}'},
    ],
)
def test_the_command_has_the_options_of_the_run(options):
    settings = Settings("synthetic:2", "fpmc", pathlib.Path("runs/a run"), selection="own", **options)
    command = run_facts.command_of(settings)
    assert command.startswith("python -m experiments.reproduce --data synthetic:2 --backbone fpmc --out 'runs/a run'")
    arguments = shlex.split(command)[3:]
    assert parse(Settings, "reproduce", None, arguments=arguments) == settings
    assert "--seeds" in dict(run_facts.option_rows(settings))


def test_the_date_and_the_versions_are_named():
    assert run_facts.written_at().endswith(" UTC")
    assert run_facts.versions().startswith("alkd_jax ")
