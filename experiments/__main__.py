"""The overview of the commands: `alkd` where the package is installed, `python -m experiments` in a checkout.

alkd                       lists the commands
alkd reproduce --help      explains one of them
alkd benchmark training    measures the speed of this machine
alkd completion bash       prints the completion of command names and options for a shell: bash or zsh
"""

import ast
import contextlib
import importlib.resources
import io
import re
import runpy
import sys
import warnings
from collections.abc import Mapping

from alkd_jax.checks import check_one_of

from .pipeline import calls
from .pipeline.calls import ALIASES
from .pipeline.exits import one_line_errors

COMMANDS: Mapping[str, tuple[str, ...]] = {
    "To begin": ("demo",),
    "Data": ("download", "prepare", "audit", "verify"),
    "One model on one dataset": ("train",),
    "The method": ("reproduce", "query_llm", "summarize_hints", "embed_items", "tune"),
    "Tables and figures": (
        "table1",
        "table2",
        "fig2_width",
        "fig2_correction",
        "fig3_ratios",
        "fig4_budget",
        "all",
        "leaderboard",
        "best",
        "power",
        "steps",
        "information",
        "list_losses",
        "ceiling",
        "record",
    ),
    "The selection game": ("game", "value_of_questions", "ask_items"),
    "A student in production": ("efficiency", "export", "recommend", "serve"),
}
"""What commands are for → their names, in the order of use."""

SHELLS = ("bash", "zsh")
_COMPLETION = """\
_alkd() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} words
    if [ "$COMP_CWORD" -eq 1 ]; then
        words="{names}"
    else
        case ${{COMP_WORDS[1]}} in
{cases}
        esac
    fi
    COMPREPLY=($(compgen -W "$words" -- "$current"))
    case $current in -*) ;; *) [ "$COMP_CWORD" -gt 1 ] && COMPREPLY+=($(compgen -f -- "$current")) ;; esac
}}
complete -o filenames -F _alkd alkd
"""


def headline(package: str, name: str) -> str:
    """Returns the first line of a module's docstring; the module is not imported, which would take seconds."""
    source = importlib.resources.files(package).joinpath(f"{name}.py").read_text(encoding="utf-8")
    return calls.with_calls((ast.get_docstring(ast.parse(source)) or "").partition("\n")[0])


def overview() -> str:
    """Returns a line for every command, in the order of use, and how commands are called."""
    call = calls.overview_call()
    width = max(len(name) for names in COMMANDS.values() for name in names)
    lines = [
        "Active LLM-based knowledge distillation for session-based recommendation.",
        f"Usage: {call} COMMAND [OPTIONS]",
    ]
    for purpose, names in COMMANDS.items():
        lines += [
            "",
            purpose,
            *(f"  {name:{width}}  {headline(__package__, ALIASES.get(name, name))}" for name in names),
        ]
    lines += ["", "Speed", f"  {'benchmark':{width}}  Measures this machine: {', '.join(benchmark_names())}."]
    return "\n".join([*lines, "", f"{call} COMMAND --help lists the options of a command."])


def benchmark_names() -> list[str]:
    """Returns the names of the benchmarks: the modules that are commands and no peers to compare with."""
    files = sorted(importlib.resources.files(calls.benchmarks_package()).iterdir(), key=lambda file: file.name)
    sources = {file.name: file.read_text(encoding="utf-8") for file in files if file.name.endswith(".py")}
    return [name.removesuffix(".py") for name, source in sources.items() if '"__main__":\n    run_command(' in source]


def run_module(module: str, arguments: list[str]) -> None:
    """Runs a module as `python -m` does."""
    sys.argv[1:] = arguments
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def run_command(name: str, arguments: list[str]) -> None:
    """Runs a command by its name.

    Args:
        name: of the command.
        arguments: its arguments.

    Raises:
        ValueError: there is no such command or benchmark.
    """
    known = [*(name for names in COMMANDS.values() for name in names), *ALIASES.values()]
    if name == "benchmark":
        benchmark = arguments[0] if arguments else ""
        check_one_of("benchmark", benchmark, benchmark_names())
        run_module(f"{calls.benchmarks_package()}.{benchmark}", arguments[1:])
    elif name == "completion":
        check_one_of("shell", arguments[0] if arguments else "", SHELLS)
        print(completion(arguments[0]), end="")
    else:
        check_one_of("command", name, [*known, "benchmark", "completion"])
        run_module(f"{__package__}.{ALIASES.get(name, name)}", arguments)


def completion(shell: str) -> str:
    """Returns a script that completes command names, their options, and files; made from the commands' help."""
    names = [name for names in COMMANDS.values() for name in names]
    cases = [f'            {name}) words="{" ".join(options_of(name))}" ;;' for name in names]
    cases.append(f'            benchmark) words="{" ".join(benchmark_names())}" ;;')
    script = _COMPLETION.format(names=" ".join([*names, "benchmark", "completion"]), cases="\n".join(cases))
    return script if shell == "bash" else f"autoload -U +X bashcompinit && bashcompinit\n{script}"


def options_of(name: str) -> list[str]:
    """Returns the options that the help of a command lists; of one with sub-commands, those and the options of all."""
    text = help_of(name)
    usage = re.search(r"\[-h\]\s+\{(.+?)\}", text, re.DOTALL)
    subcommands = re.split(r",\s*", usage[1]) if usage else []
    texts = [text, *(help_of(name, subcommand) for subcommand in subcommands)]
    options = {option for shown in texts for option in re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", shown)}
    return [*subcommands, *sorted(options)]


def help_of(*words: str) -> str:
    """Returns what a command, or a sub-command, shows with --help."""
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit), warnings.catch_warnings():
        # Python warns that another command has imported this one before.
        warnings.simplefilter("ignore", RuntimeWarning)
        run_command(words[0], [*words[1:], "--help"])
    return shown.getvalue()


def main() -> None:
    """Entry point."""
    # The console script calls this function of the installed module; `python -m` runs the module itself.
    if __name__ != "__main__" and __package__ != "experiments":
        calls.use_console_script()
    arguments = sys.argv[1:]
    with one_line_errors():
        if not arguments or arguments[0] in ("-h", "--help", "help"):
            print(overview())
        else:
            run_command(arguments[0], arguments[1:])


if __name__ == "__main__":
    main()
