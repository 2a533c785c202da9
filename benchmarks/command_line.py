"""How a benchmark is called; without JAX."""

import importlib
from collections.abc import Callable
from typing import Any


def run_command(main: Callable[[Any], Any], kind: type, name: str, description: str | None) -> None:
    """Runs a benchmark as the command that this process was started for, as the experiments run theirs.

    Args:
        main: function of the options.
        kind: the dataclass of the options.
        name: of the benchmark.
        description: text of `--help`.
    """
    # In a checkout the experiments are a package of their own, in a wheel they are below the library, as this one.
    pipeline = f"{(__package__ or '').removesuffix('benchmarks')}experiments.pipeline"
    modules = (importlib.import_module(f"{pipeline}.{module}") for module in ("command_line", "exits", "profiles"))
    command_line, exits, profiles = modules
    with exits.one_line_errors():
        options = command_line.parse(kind, f"benchmarks.{name}", description)
        with profiles.profiling(getattr(options, "profile", None)):
            if hasattr(options, "distributed"):
                importlib.import_module(f"{pipeline}.distributed").run(options, main, None)
            else:
                main(options)
