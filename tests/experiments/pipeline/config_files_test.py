"""Files of options: their values, and what is refused in them."""

import dataclasses
import json
import pathlib

import pytest

from experiments.pipeline.config_files import read_arguments, read_values


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of every type."""

    out: pathlib.Path
    seeds: int = 1
    learning_rate: float = 0.1
    budget_usd: str | None = None
    ratios: tuple[int, int, int] = (1, 5, 4)
    runs: tuple[pathlib.Path, ...] = ()
    strict: bool = False
    refit: bool | None = None


@pytest.fixture
def read(tmp_path):
    """A function that writes a file of options and reads it as arguments."""

    def call(text, *given, suffix=".yaml"):
        path = tmp_path / f"options{suffix}"
        path.write_bytes(text.encode())
        return read_arguments(path, Options, given)

    return call


SAME = (
    '{"learning-rate": 1e-3, "ratios": [1, 1, 0], "strict": true, "seeds": 3, "budget_usd": "1.00", "runs": ["a"]}',
    "learning_rate: 1e-3\nratios: [1, 1, 0]\nstrict: true\nseeds: 3\nbudget-usd: '1.00'\nruns:\n- a\n",
    'learning_rate = 1e-3\nratios = [1, 1, 0]\nstrict = true\nseeds = 3\nbudget_usd = "1.00"\nruns = ["a"]\n',
)


@pytest.mark.parametrize(("text", "suffix"), [*zip(SAME, (".json", ".yml", ".toml"), strict=True)])
def test_all_formats_give_the_same_arguments(read, text, suffix):
    expected = ["--learning-rate=0.001", "--ratios", "1", "1", "0", "--strict", "--seeds=3", "--budget-usd=1.00"]
    assert read(text, suffix=suffix) == [*expected, "--runs", "a"]


@pytest.mark.parametrize("given", [("--seeds", "2"), ("--seeds=2",)])
def test_an_option_of_the_command_line_is_not_taken_from_the_file(read, given):
    assert read("seeds: 3\nstrict: false\n", *given) == ["--no-strict"]
    assert read("strict: true\n", "--no-strict") == []


def test_a_switch_that_may_be_left_open_is_a_flag_as_any_other(read):
    assert read("refit: true\nstrict: true\n") == ["--refit", "--strict"]
    assert read("refit: false\n") == ["--no-refit"]


def test_null_stands_for_the_default_where_there_may_be_none(read):
    assert read("budget_usd: null\n") == []
    with pytest.raises(ValueError, match="seeds is None; expected a whole number"):
        read("seeds:\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sedes: 3", "'sedes' is 3, and is no option; expected some of budget_usd, learning_rate, out, ratios"),
        ("1: 3", "1 is 3, and is no option"),
        ("seeds: many", "seeds is 'many'; expected a whole number"),
        ("seeds: 1.5", "seeds is 1.5; expected a whole number"),
        ("seeds: true", "seeds is True; expected a whole number"),
        ("seeds: 010", "seeds is '010'; expected a whole number"),
        ("strict: 1", "strict is 1; expected true or false"),
        ("learning_rate: fast", "learning_rate is 'fast'; expected a number"),
        ("budget_usd: 1.00", "budget_usd is 1.0; expected text, in quotes"),
        ("ratios: [1, 5]", r"ratios is \[1, 5\]; expected a list of 3 values, each a whole number"),
        ("ratios: 1:5:4", "ratios is '1:5:4'; expected a list"),
        ("runs: a", "runs is 'a'; expected a list of a path, in quotes"),
        ("runs: [--strict]", "expected values that do not begin with --"),
        ("out: 2024-01-01", r"out is datetime.date\(2024, 1, 1\); expected a path"),
        ("- seeds", r"holds \['seeds'\]; expected options by name"),
        ("seeds: 1\nseeds: 2", "'seeds' is there twice; expected each option once"),
        ("seeds: [", "cannot be read"),
        ("a: &a [1]\nruns: *a", "line 2 has a reference, [*]a"),
        ("<<: {seeds: 1}", "cannot be read"),
        ("out: !!python/object/apply:os.getcwd []", "cannot be read"),
        ("runs: " + "[" * 500, "cannot be read"),
        ("seeds: 1" + "0" * 5000, "cannot be read"),
    ],
)
def test_what_is_refused_is_one_line_with_the_file(read, text, message):
    with pytest.raises(ValueError, match=message) as caught:
        read(text)
    assert "options.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_aliases_cannot_make_a_small_file_large(read):
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    with pytest.raises(ValueError, match="has a reference"):
        read("\n".join(levels))


@pytest.mark.parametrize(("text", "suffix"), [('{"seeds": 1, "seeds": 2}', ".json"), ("seeds = 1\nseeds = 2", ".toml")])
def test_an_option_twice_is_refused(read, text, suffix):
    with pytest.raises(ValueError, match="each option once"):
        read(text, suffix=suffix)


def test_large_files_other_suffixes_and_other_bytes_are_refused(tmp_path, read):
    with pytest.raises(ValueError, match="more than 1,048,576 bytes"):
        read("#" * 2**20 + "\n")
    with pytest.raises(ValueError, match=r"expected a file whose name ends in [.]yaml"):
        read("seeds: 1", suffix=".txt")
    path = tmp_path / "bytes.yaml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="cannot be read"):
        read_values(path)
    with pytest.raises(FileNotFoundError):
        read_values(tmp_path / "none.json")


def test_an_empty_file_sets_nothing(read):
    assert read("# nothing\n") == []
    assert read(json.dumps({}), suffix=".json") == []
