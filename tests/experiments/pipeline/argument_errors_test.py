"""What is wrong with the arguments of a command: one line that names option, value and what was expected."""

import dataclasses
import pathlib
import sys
from typing import Annotated

import pytest
import tyro

from experiments import prepare
from experiments.pipeline import argument_errors, command_line
from experiments.pipeline.exits import one_line_errors


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of a command."""

    out: pathlib.Path
    seeds: int = 1
    share: float | None = None
    names: tuple[str, ...] = ()
    cuts: tuple[float, float] = (0.5, 0.5)
    strict: bool = False

    def __post_init__(self):
        if self.seeds > 100:
            raise ValueError(f"--seeds is {self.seeds}; expected at most 100")


FAULTS = {
    "--out a --seds 3": "--seds is '3', and is no option of python -m experiments.reproduce; did you mean --seeds?",
    "--out a --seed=3": "--seed is '3', and is no option of python -m experiments.reproduce; did you mean --seeds?",
    "--out a --no-strct": "--no-strct is no option of python -m experiments.reproduce; did you mean --no-strict?",
    "--out a -q": "-q is no option of python -m experiments.reproduce; "
    "expected one of those that python -m experiments.reproduce --help lists",
    "--out a --seeds x": "--seeds is 'x'; expected a whole number",
    "--out a --seeds 1.5": "--seeds is '1.5'; expected a whole number",
    "--out a --seeds": "--seeds has no value; expected a whole number",
    "--out a --seeds 2 3": "--seeds is '2 3'; expected one value, a whole number",
    "--out a --share much": "--share is 'much'; expected a number",
    "--out a --share None": "--share is 'None'; expected a number",
    "--out a --cuts 1 2 3": "--cuts is '1 2 3'; expected a list of 2 values, each a number",
    "--out a --strict yes": "--strict is 'yes'; expected no value, as a name that begins with --no- means no",
    "a --out b": "'a' follows no option; expected options of python -m experiments.reproduce, which begin with --",
    "--seeds 2": "--out is missing; expected a path",
    "--out a --seeds 101": "--seeds is 101; expected at most 100",
}


@dataclasses.dataclass(frozen=True)
class OfData:
    """Options of a command that takes prepared data."""

    data: str


def test_the_option_of_other_commands_for_the_same_purpose_is_named():
    fault = argument_errors.fault_of(OfData, ["--source", "csv:a.csv"], "alkd reproduce")
    assert fault == "--source is 'csv:a.csv', and is no option of alkd reproduce; did you mean --data?"
    assert "did you mean" not in argument_errors.fault_of(Options, ["--source", "b"], "alkd tune")


@pytest.mark.parametrize(("arguments", "line"), FAULTS.items())
def test_wrong_arguments_end_a_command_with_one_line(arguments, line, capsys):
    with pytest.raises(SystemExit) as stop, one_line_errors():
        command_line.parse(Options, "reproduce", "", arguments=arguments.split())
    output = capsys.readouterr()
    assert (stop.value.code, output.out) == (2, "")
    assert output.err.startswith("error: ")
    assert output.err.endswith("\n")
    assert output.err.count("\n") == 1
    assert line in output.err


@pytest.mark.parametrize("arguments", ["--out a", "--out a --share -0.5 --names", "--out=a --no-strict --cuts 1 -2"])
def test_arguments_that_the_parser_takes_have_no_fault(arguments):
    command_line.parse(Options, "reproduce", "", arguments=arguments.split())
    assert argument_errors.fault_of(Options, arguments.split(), "x") is None


def test_faults_of_a_sub_command_name_it(capsys):
    kinds = {"ask": Options, "show": dict}
    for arguments, line in (
        ((), "the command after python -m experiments.query_llm is ''; expected 'ask' or 'show'"),
        (("shw",), "the command after python -m experiments.query_llm is 'shw'; expected 'ask' or 'show'"),
        (
            ("ask", "--outt", "a"),
            "--outt is 'a', and is no option of python -m experiments.query_llm ask; did you mean",
        ),
    ):
        with pytest.raises(SystemExit) as stop, one_line_errors():
            command_line.parse_subcommand(kinds, "query_llm", "", arguments=arguments)
        assert stop.value.code == 2
        assert capsys.readouterr().err.startswith(f"error: {line}")


def test_an_option_that_decides_nothing_by_default_is_a_flag(monkeypatch):
    def parsed(*flags):
        monkeypatch.setattr(sys, "argv", ["alkd", "--source", "csv:a", "--out", "b", *flags])
        options = command_line.parse(prepare.Preparation, "prepare", "")
        return options.count_duplicates, options.refit

    assert parsed() == (None, None)
    assert parsed("--count-duplicates", "--refit") == (True, True)
    assert parsed("--no-count-duplicates", "--no-refit") == (False, False)


def test_a_value_without_a_name_is_one_of_the_commands_own():
    def command(name: Annotated[str | None, tyro.conf.Positional] = None, data: str = "") -> None: ...

    assert argument_errors.fault_of(command, ["first", "--data", "raw"], "alkd verify") is None
    fault = argument_errors.fault_of(command, ["first", "second"], "alkd verify")
    assert fault == "'second' follows no option; expected options of alkd verify, which begin with --"
