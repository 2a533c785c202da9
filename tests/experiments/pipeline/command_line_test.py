"""The command line of all commands and benchmarks: usage, help, examples, shared wording, and files of options."""

import dataclasses
import functools
import io
import json
import pathlib
import re
import shlex
import types
import typing
import warnings

import pytest
import yaml

from experiments import __main__ as overview
from experiments.pipeline import argument_errors, calls, command_line, config_files
from tests.helpers.paths import ROOT

NAMES = [name for names in overview.COMMANDS.values() for name in names]
COMMANDS = [(name,) for name in NAMES if name != "query_llm"]
COMMANDS += [("query_llm", name) for name in ("estimate", "pilot", "run", "show", "status", "export", "salvage")]
COMMANDS += [("benchmark", name) for name in overview.benchmark_names()]
OWN_MEANING = {
    *("backbone", "data", "json", "max-length", "max-steps", "method", "model", "options", "out", "overwrite"),
    *(
        "ratios",
        "recipe",
        "refit",
        "runs",
        "seed",
        "seeds",
        "seen",
        "sessions",
        "ship",
        "shuffles",
        "source",
        "store",
        "targets",
        "title-vectors",
    ),
}
"""Options that mean something else in each command, and are described by it."""


@pytest.fixture(scope="module", params=[False, True], ids=["checkout", "console script"])
def is_script(request):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calls, "_uses_console_script", request.param)
        yield request.param


@dataclasses.dataclass(frozen=True)
class Command:
    """A command as it is called: its options, and the text of its help."""

    kind: typing.Any
    help: str


@functools.cache
def found(words, is_script):
    """Runs a command with --help and records its options."""
    kinds, shown = [], io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        patch.setattr(command_line, "_with_config", lambda kind, arguments: kinds.append(kind) or arguments)
        patch.setattr("sys.argv", ["alkd"])
        patch.setattr("sys.stdout", shown)
        patch.setattr(calls, "_uses_console_script", is_script)
        with pytest.raises(SystemExit) as stop:
            overview.run_command(words[0], [*words[1:], "--help"])
    assert stop.value.code == 0
    return Command(kinds[0], shown.buffer.getvalue().decode())


def test_usage_and_examples_name_the_command_as_it_is_called(is_script):
    for words in COMMANDS:
        lines = found(words, is_script).help.splitlines()
        if is_script:
            call = " ".join(("alkd", *words))
        elif words[0] == "benchmark":
            call = f"python -m benchmarks.{words[1]}"
        else:
            call = " ".join((f"python -m experiments.{overview.ALIASES.get(words[0], words[0])}", *words[1:]))
        assert lines[0].startswith(f"usage: {call} [-h]"), lines[0]
        if words[0] != "query_llm":
            assert any(line.strip().startswith(f"{call} ") for line in lines[1:]), words
            assert not any(line.count(f"{call} ") > 1 for line in lines), words
        assert any("--config FILE" in line for line in lines), words
        assert not any("{None}" in line for line in lines), words


def test_advice_names_commands_as_they_are_called(is_script):
    assert calls.call_of("quickstart") == ("alkd demo" if is_script else "python -m experiments.quickstart")
    text = calls.with_calls("see python -m benchmarks.training --json FILE")
    expected = "alkd benchmark training" if is_script else "python -m benchmarks.training"
    assert text == f"see {expected} --json FILE"
    named = calls.with_calls("run experiments.prepare again; see a/experiments.prepare, experiments.md")
    name = "alkd prepare" if is_script else "experiments.prepare"
    assert named == f"run {name} again; see a/experiments.prepare, experiments.md"


CALL = re.compile(r"(?:alkd|python -m (?P<package>experiments|benchmarks)[.]?) ?(?P<name>\w+)(?P<rest>.*)")
"""A command in a line of a document."""


def commands_in(text):
    """The commands of the fenced blocks of a document: words of its name, and arguments."""
    for block in re.findall(r"^```(?:bash|sh|)\n(.*?)^```", text.replace("\\\n", " "), re.DOTALL | re.MULTILINE):
        for line in block.splitlines():
            if call := CALL.match(line):
                names = {module: name for name, module in calls.ALIASES.items()}
                words = [names.get(call["name"], call["name"]), *shlex.split(call["rest"], comments=True)]
                words = ["benchmark", *words] if call["package"] == "benchmarks" else words
                num = 2 if words[0] in ("benchmark", "query_llm") else 1
                yield tuple(words[:num]), words[num:]


def test_the_commands_of_the_documents_are_commands_with_these_options():
    num = 0
    for document in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "docs" / "notebooks").glob("*.*")):
        text = document.read_text()
        if document.suffix == ".py":
            text = re.sub("^# ?", "", text, flags=re.MULTILINE)
        for words, arguments in commands_in(text):
            if words[0] == "completion":
                assert arguments[0] in overview.SHELLS
                continue
            kind, num = found(words, False).kind, num + 1
            fault = argument_errors.fault_of(kind, arguments, " ".join(words))
            # What is missing may stand in the file.
            comes_from_file = "--config" in arguments and "is missing" in str(fault)
            assert fault is None or comes_from_file, f"{document.name}: {fault}"
    assert num > 30


def options_in(text):
    """Option → its description in a help text, without the line breaks."""
    rows = [re.sub(r"^│ ?|\s*│$", "", line) for line in text.splitlines() if line.startswith("│")]
    options, name = {}, ""
    for row in rows:
        if row.startswith("-"):
            name = re.match(r"-(?:h, -)?-([a-z-]+)", row)[1]
            options[name] = row
        elif name:  # Above the first option stands what has no name.
            options[name] += " " + row.strip()
    return {
        name: re.sub(r"\s*\((default: .*|required|repeatable)\)$", "", re.sub(r"\s+", " ", options[name]))
        for name in options
    }


def test_the_same_option_has_the_same_words_in_all_commands():
    texts = {}
    for words in (words for words in COMMANDS if words[0] != "benchmark"):
        for name, text in options_in(found(words, False).help).items():
            texts.setdefault(name, {}).setdefault(text, []).append(words)
    differing = {name for name, by_text in texts.items() if len(by_text) > 1}
    assert differing == OWN_MEANING


BACKBONES = "{fpmc,stamp,attmix,late,gru4rec,narm,srgnn,core,sasrec,gsasrec, esasrec,hstu}|package.module:attribute"


@pytest.mark.parametrize(
    ("command", "option", "choices"),
    [
        ("reproduce", "backbone", BACKBONES),
        ("table1", "backbones", BACKBONES),
        ("fig3_ratios", "mode", "clean|released|RULE[,RULE ...]"),
        ("all", "selection", "{own,released}"),
        ("leaderboard", "teacher", "{replay,simulated,openai,conventional, neighbor}|package.module:attribute"),
        ("prepare", "boundary", "{day,gap,given"),
        ("download", "name", "{hetrec2011,ml-1m,"),
        ("export", "dtype", "{float32,float16}"),
    ],
)
def test_help_lists_the_choices(command, option, choices):
    assert choices in options_in(found((command,), False).help)[option]


def example(kind, default):
    """A value of a type that is not the default one."""
    members = typing.get_args(kind)
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return example(next(member for member in members if member is not types.NoneType), default)
    if typing.get_origin(kind) is tuple:
        return [example(member, None) for member in (members[:1] * 2 if members[-1] is Ellipsis else members)]
    if kind is bool:
        return not default
    return {int: 7, float: 0.25, str: "some text", pathlib.Path: "a folder/file"}[kind]


def by_name(name, value, options):
    """An option as a user types it."""
    flag, texts = (
        f"--{name.replace('_', '-')}",
        [str(each) for each in value] if isinstance(value, list) else [str(value)],
    )
    if value is True and options[name].is_flag:
        return [flag]
    return [word for text in texts for word in (flag, text)] if options[name].repeats else [flag, *texts]


def as_toml(values):
    return "".join(f"{name} = {json.dumps(value)}\n" for name, value in values.items())


@pytest.mark.parametrize(("suffix", "dump"), [(".json", json.dumps), (".yaml", yaml.safe_dump), (".toml", as_toml)])
def test_all_options_of_every_command_can_come_from_a_file(tmp_path, suffix, dump):
    for words in COMMANDS:
        kind = found(words, False).kind
        values = {name: example(option.type, False) for name, option in config_files.options_of(kind).items()}
        (tmp_path / f"options{suffix}").write_text(dump(values))
        recorded = kind if isinstance(kind, type) else functools.wraps(kind)(lambda *args, **options: (args, options))
        options = config_files.options_of(kind)
        by_hand = [word for name, value in values.items() for word in by_name(name, value, options)]
        arguments = ["--config", str(tmp_path / f"options{suffix}")]
        assert command_line.parse(recorded, "x", "", arguments=arguments) == command_line.parse(
            recorded, "x", "", arguments=by_hand
        ), words


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of a command."""

    out: pathlib.Path
    seeds: int = 1
    names: tuple[str, ...] = ()


def parse(*arguments):
    return command_line.parse(Options, "x", "", arguments=arguments)


def test_options_of_the_command_line_win_over_those_of_the_file(tmp_path):
    file = tmp_path / "options.yaml"
    file.write_text("out: stored\nseeds: 3\nnames: [a, b]\n")
    assert parse("--config", str(file)) == Options(pathlib.Path("stored"), 3, ("a", "b"))
    changed = parse("--out", "other", f"--config={file}", "--names", "c")
    assert changed == Options(pathlib.Path("other"), 3, ("c",))


def test_a_second_file_or_none_is_refused():
    with pytest.raises(ValueError, match=r"--config is 'a[.]yaml b[.]yaml'; expected one file"):
        parse("--config", "a.yaml", "--config=b.yaml")
    with pytest.raises(ValueError, match="--config is ''; expected one file"):
        parse("--config")


def test_errors_of_a_command_are_its_own_and_a_sub_command_takes_a_file(tmp_path):
    def fail(count: int = 1) -> None:
        raise ValueError(f"count is {count}")

    (tmp_path / "options.toml").write_text("count = 5\n")
    arguments = ("--config", str(tmp_path / "options.toml"))
    with pytest.raises(ValueError, match="count is 5"):
        command_line.parse(fail, "x", "", arguments=arguments)
    with pytest.raises(ValueError, match="count is 5"):
        command_line.parse_subcommand({"fail": fail, "other": dict}, "x", "", arguments=("fail", *arguments))
