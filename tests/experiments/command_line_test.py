"""The overview of the commands, and the package that a user installs."""

import os
import pathlib
import re
import subprocess
import sys
import tomllib

import pytest

from experiments import __main__ as overview
from tests.helpers.paths import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def modules_with_main(package):
    """Modules of a package that can be run as commands."""
    found = {path.stem for path in (ROOT / package).glob("*.py") if '__name__ == "__main__"' in path.read_text()}
    return found - {"__main__"}


@pytest.fixture
def alkd(monkeypatch, capsys):
    """A function that runs `python -m experiments` with arguments; exit code, output and errors."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["alkd", *arguments])
        try:
            overview.main()
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        return code, *capsys.readouterr()

    return call


def test_every_command_is_listed_once_with_its_line():
    names = [name for names in overview.COMMANDS.values() for name in names]
    assert sorted(overview.ALIASES.get(name, name) for name in names) == sorted(modules_with_main("experiments"))
    lines = overview.overview().splitlines()
    for name in names:
        (line,) = [line for line in lines if line.startswith(f"  {name} ")]
        assert len(line.split(maxsplit=1)[1]) > 30


@pytest.mark.parametrize("arguments", [(), ("--help",), ("help",)])
def test_without_a_command_the_commands_are_listed(alkd, arguments):
    code, output, _ = alkd(*arguments)
    assert code == 0
    assert "Usage: python -m experiments COMMAND" in output
    assert "reproduce" in output


def test_a_command_and_a_benchmark_run_by_name(alkd):
    code, output, _ = alkd("serve", "--help")
    assert code == 0
    assert "--model" in output
    code, output, _ = alkd("benchmark", "selection", "--help")
    assert code == 0
    assert "--json" in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("reprodcue",), "error: command is 'reprodcue'; expected 'demo' or"),
        (("benchmark",), "error: benchmark is ''; expected 'accelerators' or"),
        (("benchmark", "harness"), "error: benchmark is 'harness'"),
        (("completion", "fish"), "error: shell is 'fish'; expected 'bash' or 'zsh'"),
    ],
)
def test_an_unknown_name_is_one_line(alkd, arguments, message):
    code, output, errors = alkd(*arguments)
    assert (code, output) == (2, "")
    assert errors.startswith(message)
    assert errors.count("\n") == 1


def test_completion_knows_names_and_options(monkeypatch, tmp_path):
    monkeypatch.setattr(overview, "COMMANDS", {"Some": ("serve", "game", "query_llm")})
    file = tmp_path / "completion"
    file.write_text(overview.completion("bash"))

    def complete(*words):
        line = f"COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}"
        shell = f"source {file}; {line}; _alkd; echo ${{COMPREPLY[@]}}"
        return subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=True).stdout.split()

    assert complete("alkd", "se") == ["serve"]
    assert complete("alkd", "serve", "--m") == ["--model"]
    assert {"--out", "--sessions"} <= set(complete("alkd", "game", "--"))
    assert complete("alkd", "query_llm", "st") == ["status"]
    assert complete("alkd", "query_llm", "run", "--budget-u") == ["--budget-usd"]


def test_the_wheel_holds_every_package_and_the_command():
    folders = {path.parent for top in ("alkd_jax", "experiments", "benchmarks") for path in (ROOT / top).rglob("*.py")}
    names = {".".join(folder.relative_to(ROOT).parts) for folder in folders}
    expected = {name if name.startswith("alkd_jax") else f"alkd_jax.{name}" for name in names}
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == expected
    assert all((folder / "__init__.py").is_file() for folder in folders)
    assert PROJECT["project"]["scripts"] == {"alkd": "alkd_jax.experiments.__main__:main"}
    others = {
        path for path in (ROOT / "experiments" / "reporting").rglob("*") if path.is_file() and path.suffix != ".py"
    }
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["alkd_jax.experiments.reporting"]
    shipped = {path for pattern in patterns for path in (ROOT / "experiments" / "reporting").glob(pattern)}
    assert {path for path in others if "__pycache__" not in path.parts} == shipped


def test_the_readme_is_short_and_its_links_lead_somewhere():
    text = (ROOT / "README.md").read_text()
    assert len(text.encode()) <= 10_000
    for document in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)#]+)[)#]", document.read_text()):
            assert target.startswith("https://") or (document.parent / target).exists(), f"{document}: {target}"


def test_the_license_and_the_citation_agree_with_the_package():
    assert PROJECT["project"]["license"] == "Apache-2.0"
    assert "Apache License" in (ROOT / "LICENSE").read_text()
    citation = (ROOT / "CITATION.cff").read_text()
    assert re.search(r"^version: (.+)$", citation, re.M)[1] == PROJECT["project"]["version"]
    assert re.search(r"^license: (.+)$", citation, re.M)[1] == PROJECT["project"]["license"]


@pytest.mark.slow
def test_an_installed_wheel_runs_outside_the_checkout(tmp_path):
    def run(*command):
        environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "XLA_FLAGS")}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=1800)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT))
    (wheel,) = tmp_path.glob("*.whl")
    run(sys.executable, "-m", "venv", "fresh")
    scripts = pathlib.Path("fresh", "bin")
    constraints = ("-c", str(ROOT / "constraints.txt"))
    run(str(scripts / "python"), "-m", "pip", "install", "--quiet", *constraints, f"{wheel}[report]")
    assert "Usage: alkd COMMAND" in run(str(scripts / "alkd"), "--help")
    run(str(scripts / "alkd"), "demo", "--out", "demo", "--seeds", "1")
    assert (tmp_path / "demo" / "metrics.json").is_file()
    assert (tmp_path / "demo" / "report.html").is_file()
