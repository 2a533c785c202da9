"""How the commands are called in this process, for usage lines and advice; without JAX."""

import importlib.resources
import re

CONSOLE_SCRIPT = "alkd"

ALIASES = {"demo": "quickstart"}
"""Name of a command → name of its module where they differ."""

_PACKAGE = __name__.removesuffix(".pipeline.calls")
_uses_console_script = False


def use_console_script() -> None:
    """Makes all calls be written as those of the console script `alkd`, by which this process was started."""
    global _uses_console_script
    _uses_console_script = True


def benchmarks_package() -> str:
    """Returns the name of the package of the benchmarks, which stands beside that of the experiments."""
    return ".".join([*_PACKAGE.split(".")[:-1], "benchmarks"])


def call_of(module: str) -> str:
    """Returns how a command is called.

    Args:
        module: its module, such as "reproduce"; a benchmark's is "benchmarks.training".

    Example:
        >>> call_of("reproduce")
        'python -m experiments.reproduce'
    """
    package, _, name = module.rpartition(".")
    if _uses_console_script:
        names = {module: name for name, module in ALIASES.items()}
        return f"{CONSOLE_SCRIPT} benchmark {name}" if package else f"{CONSOLE_SCRIPT} {names.get(name, name)}"
    return f"python -m {benchmarks_package() if package else _PACKAGE}.{name}"


def overview_call() -> str:
    """Returns how the overview of the commands is called, whose first argument may be a command's name."""
    return CONSOLE_SCRIPT if _uses_console_script else f"python -m {_PACKAGE}"


def with_calls(text: str) -> str:
    """Returns a text in which every `python -m experiments.NAME`, and `benchmarks.NAME`, is as in this process.

    For the console script, an `experiments.NAME` of a sentence is the command's name, too, if there is such a command.
    """

    def call(found: re.Match[str]) -> str:
        package, name = found["package"], found["name"]
        if found["python"] is None and not (_uses_console_script and is_command(name)):
            return found[0]
        return call_of(name if package == "experiments" else f"{package}.{name}")

    return re.sub(r"(?P<python>python -m )?(?<![\w./-])(?P<package>experiments|benchmarks)\.(?P<name>\w+)", call, text)


def is_command(name: str) -> bool:
    """Whether a module of the experiments has this name."""
    return importlib.resources.files(_PACKAGE).joinpath(f"{name}.py").is_file()
