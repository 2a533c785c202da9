"""The house rules a machine can check: imports run downwards, importing is light, public names are documented."""

import ast
import importlib
import inspect
import pathlib
import pkgutil
import re
import subprocess
import sys

import pytest
from hypothesis import settings

import alkd_jax

ROOT = pathlib.Path(__file__).resolve().parents[1]

LAYERS = [
    {"types", "checks", "io"},
    {"sharding"},
    {"ops"},
    {"maxmin", "losses", "models", "scoring", "llm"},
    {"data", "evaluation", "samplers", "selection", "serving", "baselines"},
    {"objectives"},
    {"training"},
    {"distillation"},
]
"""Rooms of the library from the ground up; a room imports from the layers below it, or from itself."""

HEAVY = ["openai", "tiktoken", "pandas", "polars", "matplotlib", "orbax", "sklearn"]


def layer_of(room):
    for number, rooms in enumerate(LAYERS):
        if room in rooms:
            return number
    raise AssertionError(f"alkd_jax/{room} stands in no layer; give it a place in LAYERS")


def room_of(module):
    return module.split(".")[1] if module.count(".") else ""


def imported_modules(path):
    """Absolute names of what a file imports, functions' own imports included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                known = (ROOT / name.replace(".", "/")).is_dir() or (ROOT / f"{name.replace('.', '/')}.py").exists()
                yield name if known else node.module


LIBRARY = sorted((ROOT / "alkd_jax").rglob("*.py"))


@pytest.mark.parametrize("path", LIBRARY, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_run_downwards(path):
    room = path.relative_to(ROOT / "alkd_jax").parts[0].removesuffix(".py")
    for module in imported_modules(path):
        top = module.split(".")[0]
        assert top not in ("experiments", "benchmarks", "tests"), f"{path} imports {module}"
        if room == "__init__" or top != "alkd_jax" or module == "alkd_jax.types":
            continue
        assert module != "alkd_jax", f"{path} imports the whole library"
        if room_of(module) != room:
            assert layer_of(room_of(module)) < layer_of(room), f"{path} imports {module} from above or beside"


def test_every_room_is_in_the_library():
    rooms = {path.relative_to(ROOT / "alkd_jax").parts[0].removesuffix(".py") for path in LIBRARY} - {"__init__"}
    assert rooms == set.union(*LAYERS)


def test_llm_imports_no_jax():
    for path in (ROOT / "alkd_jax" / "llm").glob("*.py"):
        assert not [m for m in imported_modules(path) if m.split(".")[0] in ("jax", "flax", "optax")], path


def test_importing_the_library_is_light():
    code = f"import sys, alkd_jax; print([m for m in {HEAVY} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert out.stdout.strip() == "[]"


def test_serving_a_student_needs_no_jax():
    heavy = ["jax", "flax", "scipy", "onnx"]
    code = f"import sys, alkd_jax.serving.recommender; print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert out.stdout.strip() == "[]"


def test_public_names_are_documented():
    modules = [alkd_jax] + [
        importlib.import_module(info.name) for info in pkgutil.walk_packages(alkd_jax.__path__, "alkd_jax.")
    ]
    for module in modules:
        assert module.__doc__, module.__name__
        for name, value in vars(module).items():
            if name.startswith("_") or not (inspect.isclass(value) or inspect.isfunction(value)):
                continue
            if getattr(value, "__module__", "") == module.__name__:
                assert value.__doc__, f"{module.__name__}.{name} has no docstring"


def test_everything_offered_exists():
    for name in alkd_jax.__all__:
        assert hasattr(alkd_jax, name), name


@pytest.mark.parametrize("place", ["alkd_jax", "experiments", "benchmarks"])
def test_files_and_functions_stay_short(place):
    for path in (ROOT / place).rglob("*.py"):
        text = path.read_text()
        assert len(text.splitlines()) <= 400, f"{path} is too long to be one noun"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                size = node.end_lineno - node.lineno + 1
                assert size <= 90, f"{path}: {node.name} has {size} lines"


def test_no_property_is_given_a_time_to_hold_in():
    """One profile for all tests says so; a busy machine would fail them."""
    assert settings().deadline is None
    for path in (ROOT / "tests").glob("*_test.py"):
        assert not re.search(r"\bdeadline ?=", path.read_text()), path
