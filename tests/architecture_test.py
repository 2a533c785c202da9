"""Rules of the code that a machine can check: imports, what importing loads, documented names, lengths, test files."""

import ast
import importlib
import inspect
import pathlib
import pkgutil
import re
import shutil
import subprocess
import sys

import pytest
from hypothesis import settings

import alkd_jax

ROOT = pathlib.Path(__file__).resolve().parents[1]
LIBRARY = sorted((ROOT / "alkd_jax").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*_test.py"))

LAYERS = [
    {"errors"},
    {"progress_bars", "types", "checks", "io", "locks", "paper_settings"},
    {"sharding", "registry"},
    {"ops"},
    {"maxmin", "losses", "models", "scoring", "llm"},
    {"data", "evaluation", "samplers", "selection", "serving"},
    {"objectives", "baselines"},
    {"training"},
    {"distillation"},
]
"""Packages and top-level modules of the library, lowest layer first. A package imports only from the layers below it
and from itself."""

HEAVY = ["openai", "tiktoken", "pandas", "polars", "matplotlib", "orbax", "sklearn", "lightgbm"]
MAX_CODE_LINES_OF_FUNCTION = 60
MAX_CODE_LINES_OF_FILE = 350
MAX_LINES_OF_TEST_FILE = 400


def package_of(module):
    """The first name below the library: `models` of `alkd_jax.models.fpmc`."""
    return module.split(".")[1] if module.count(".") else ""


def package_of_file(path):
    return path.relative_to(ROOT / "alkd_jax").parts[0].removesuffix(".py")


def layer_of(package):
    for number, packages in enumerate(LAYERS):
        if package in packages:
            return number
    raise AssertionError(f"alkd_jax/{package} is in no layer; add it to LAYERS")


def imported_modules(path):
    """Absolute names of the modules that a file imports, imports inside functions included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                known = (ROOT / name.replace(".", "/")).is_dir() or (ROOT / f"{name.replace('.', '/')}.py").exists()
                yield name if known else node.module


def docstring_lines(node):
    if ast.get_docstring(node, clean=False) is None:
        return 0
    docstring = node.body[0]
    return docstring.end_lineno - docstring.lineno + 1


@pytest.mark.parametrize("path", LIBRARY, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_to_lower_layers(path):
    package = package_of_file(path)
    for module in imported_modules(path):
        top = module.split(".")[0]
        assert top not in ("experiments", "benchmarks", "tests"), f"{path} imports {module}"
        if package == "__init__" or top != "alkd_jax":
            continue
        assert module != "alkd_jax", f"{path} imports the whole library"
        if package_of(module) != package:
            assert layer_of(package_of(module)) < layer_of(package), f"{path} imports {module}, which is no lower layer"


def test_every_package_is_in_a_layer():
    assert {package_of_file(path) for path in LIBRARY} - {"__init__"} == set.union(*LAYERS)


@pytest.mark.parametrize("folder", ["alkd_jax", "experiments"])
def test_only_ops_and_sharding_ask_for_the_platform(folder):
    """`sys.platform`, the operating system, decides where files lie and not what is computed."""
    question = re.compile(r"default_backend|(?<!sys)\.platform\b|platform_dependent|memory_stats|device_kind")
    for path in (ROOT / folder).rglob("*.py"):
        if folder != "alkd_jax" or package_of_file(path) not in ("ops", "sharding"):
            assert not question.search(path.read_text()), path


def test_llm_imports_no_jax():
    for path in (ROOT / "alkd_jax" / "llm").rglob("*.py"):
        assert not [m for m in imported_modules(path) if m.split(".")[0] in ("jax", "flax", "optax")], path


def test_importing_the_library_loads_no_heavy_package():
    code = f"import sys, alkd_jax; print([m for m in {HEAVY} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert out.stdout.strip() == "[]"


def test_serving_a_student_needs_no_jax():
    heavy = ["jax", "flax", "scipy", "onnx"]
    code = f"import sys, alkd_jax.serving.recommender; print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert out.stdout.strip() == "[]"


def test_public_names_are_documented():
    modules = [alkd_jax]
    for info in pkgutil.walk_packages(alkd_jax.__path__, "alkd_jax."):
        try:
            modules.append(importlib.import_module(info.name))
        except ModuleNotFoundError as error:
            if error.name.startswith("alkd_jax"):  # otherwise an optional dependency is not installed
                raise
    for module in modules:
        assert module.__doc__, module.__name__
        for name, value in vars(module).items():
            if name.startswith("_") or not (inspect.isclass(value) or inspect.isfunction(value)):
                continue
            if getattr(value, "__module__", "") == module.__name__:
                assert value.__doc__, f"{module.__name__}.{name} has no docstring"


def test_every_name_of_all_exists():
    for name in alkd_jax.__all__:
        assert hasattr(alkd_jax, name), name


@pytest.mark.parametrize("folder", ["alkd_jax", "experiments", "benchmarks"])
def test_files_and_functions_stay_short(folder):
    """Docstrings do not count, comments and blank lines do."""
    documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    for path in (ROOT / folder).rglob("*.py"):
        text = path.read_text()
        nodes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, documented)]
        lines = len(text.splitlines()) - sum(map(docstring_lines, nodes))
        assert lines <= MAX_CODE_LINES_OF_FILE, f"{path} has {lines} lines of code"
        for node in nodes:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = node.end_lineno - node.lineno + 1 - docstring_lines(node)
                assert lines <= MAX_CODE_LINES_OF_FUNCTION, f"{path}: {node.name} has {lines} lines of code"


def test_test_files_stay_short():
    for path in (ROOT / "tests").rglob("*.py"):
        lines = len(path.read_text().splitlines())
        assert lines <= MAX_LINES_OF_TEST_FILE, f"{path} has {lines} lines"


def test_no_test_module_imports_another():
    """What several test modules need lies in tests/helpers."""
    for path in (ROOT / "tests").rglob("*.py"):
        for module in imported_modules(path):
            assert not re.fullmatch(r"(tests\.)?(\w+\.)*\w+_test", module), f"{path} imports {module}"


@pytest.mark.parametrize("path", TESTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_test_folders_mirror_the_packages(path):
    folder = path.parent.relative_to(ROOT / "tests")
    root = ROOT if folder.parts[:1] in [("experiments",), ("benchmarks",)] else ROOT / "alkd_jax"
    assert (root / folder).is_dir(), f"{path} tests no package; what several tests need lies in tests/helpers"


def test_no_property_has_a_deadline():
    """The one hypothesis profile of all tests sets none, because examples take longer on a busy machine."""
    assert settings().deadline is None
    for path in TESTS:
        assert not re.search(r"\bdeadline ?=", path.read_text()), path


COMMANDS = sorted(path.stem for path in (ROOT / "experiments").glob("*.py") if not path.stem.startswith("__"))
SHOW_HELP = """
import runpy, sys
package, *commands = sys.argv[1:]
for command in commands:
    sys.argv = [command, "--help"]
    try:
        runpy.run_module(f"{package}.{command}", run_name="__main__")
    except SystemExit as stop:
        assert stop.code == 0, command
    else:
        raise AssertionError(f"{command} ignored --help")
if package != "experiments":
    assert not [name for name in sys.modules if name.split(".")[0] == "experiments"]
"""


@pytest.mark.parametrize("package", ["experiments", "benchmarks"])
def test_commands_import_their_own_modules_relatively(package):
    for path in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module]
            assert not [name for name in names if name.split(".")[0] == package], f"{path}:{node.lineno}"


@pytest.mark.parametrize("package", ["experiments", "shipped.commands"])
def test_every_command_runs_also_under_another_package_name(tmp_path, package):
    """A wheel may hold the commands under another name than a checkout; no process then imports both."""
    folder = tmp_path / package.replace(".", "/")
    shutil.copytree(ROOT / "experiments", folder, ignore=shutil.ignore_patterns("results", "__pycache__"))
    code = [sys.executable, "-c", SHOW_HELP, package, *COMMANDS]
    out = subprocess.run(code, capture_output=True, text=True, cwd=tmp_path)
    assert out.returncode == 0, out.stderr
    for command in COMMANDS:
        assert f"python -m {package}.{command}" in out.stdout, f"the help of {command} does not show its call"
