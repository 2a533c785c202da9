"""The options that several commands share, in one wording, and the choices that `--help` lists.

A value that is none of the choices is refused by the code that reads it, in one line.
"""

import pathlib
from collections.abc import Iterable
from typing import Annotated, Any

import tyro

from alkd_jax import models
from alkd_jax.data.readers.registry import READERS
from alkd_jax.evaluation.protocol import SEEN
from alkd_jax.evaluation.queries import TARGETS
from alkd_jax.ops.precision import PRECISIONS
from alkd_jax.serving import manifest

OWN = "package.module:attribute"


def choices(known: Iterable[str], *, help: str | None = None, own: bool = False, several: bool = False) -> Any:
    """Returns an annotation of an option with a closed set of values, which help lists.

    Args:
        known: the values.
        help: the option in words; by default those of the docstring.
        own: whether a part of a user's own may be named as `package.module:attribute` instead.
        several: whether the option takes several values.
    """
    metavar = f"{{{','.join(known)}}}{f'|{OWN}' if own else ''}"
    return tyro.conf.arg(metavar=f"[{metavar} ...]" if several else metavar, help=help)


def _described(help: str, metavar: str | None = None) -> Any:
    return tyro.conf.arg(help=help, metavar=metavar)


def sources(result: Any = None) -> str:
    """Returns the forms of the sources of data, for help.

    Args:
        result: type that a source gives; by default any.
    """
    forms = [reader.form for reader in READERS.values() if result is None or reader.result is result]
    return f"{', '.join(forms)}, or a reader of your own as {OWN}[:ARGUMENT ...]"


_SOURCES = f"{sources()}. Raw data are prepared in memory by the recipe of their kind."
_BACKBONES = "see docs/own_parts.md for a class of your own."
Data = Annotated[str, _described(f"source of the data: {_SOURCES}", "SOURCE")]
AllData = Annotated[tuple[str, ...], _described(f"sources of the data, one or more: {_SOURCES}", "SOURCE [SOURCE ...]")]
Backbone = Annotated[
    str, choices(models.BACKBONES, own=True, help=f"architecture of teacher and students; {_BACKBONES}")
]
Backbones = Annotated[
    tuple[str, ...],
    choices(models.BACKBONES, own=True, several=True, help=f"architectures of teacher and students; {_BACKBONES}"),
]
Mode = Annotated[
    str, choices(("clean", "released"), help='"clean", or "released" to repeat the authors\' code with its bugs.')
]
Seen = Annotated[
    str,
    choices(
        SEEN,
        help='"exclude" ranks a test target among the items that are not known from its session, "keep" among all '
        "items.",
    ),
]
Targets = Annotated[
    str,
    choices(
        TARGETS,
        help='items to predict in each test session: its "last" one, from the inputs that the models were trained to '
        'read; the "first" one, or "all", from the complete session.',
    ),
]
Selection = Annotated[
    str | None,
    choices(
        ("own", "released"),
        help='"released" reads the authors\' files, "own" solves the game for this run\'s teacher; by '
        "default released for released data and own for all other.",
    ),
]
RankingsFile = Annotated[
    pathlib.Path | None, _described("file of recorded lists that replay reads instead of the authors' file.", "FILE")
]
Budget = Annotated[
    int | None,
    _described(
        "number of sessions that the LLM ranks, per selection; by default the paper's, 750 for FPMC on Games and 500 "
        "otherwise, but at most a fifth of the training sessions.",
        "INT",
    ),
]
TeacherDim = Annotated[int, _described("width of the teacher.")]
Seeds = Annotated[int, _described("number of seeds: of teachers and students that are trained, all in one program.")]
MaxSteps = Annotated[int, _described("maximum number of training steps of teacher, student and distillation, each.")]
Precision = Annotated[
    str,
    choices(
        PRECISIONS,
        help="of the products in training; accelerators compute tf32 and bfloat16 faster. All ranks are computed in "
        "float32.",
    ),
]
Mesh = Annotated[
    str | None,
    _described(
        "devices to compute on: batches are sharded along the first axis, item tables along the second; by default one "
        "device. A run may continue on another mesh.",
        "data=N,model=M",
    ),
]
Overwrite = Annotated[
    bool,
    _described(
        "replace finished results in the folder, where they were made with other options or are damaged; without it "
        "such a command is refused, and lists them. More methods never replace results, and more seeds do, since one "
        "program trains the students of all seeds."
    ),
]
RunFolder = Annotated[pathlib.Path, _described("folder of a run, as `reproduce` or `demo` made it.", "FOLDER")]
WeightsType = Annotated[
    str, choices(manifest.DTYPES, help="type of the exported weights; float16 takes half the size.")
]
BaseUrl = Annotated[str, _described("address of an OpenAI-compatible server.", "URL")]
BudgetUsd = Annotated[
    str | None, _described("dollars that the run may spend on the language model, over all calls together.", "DOLLARS")
]
MinValid = Annotated[int, _described("number of valid entries from which an incomplete list of the model is used.")]
PromptTokens = Annotated[
    int, _described("tokens of one question to the LLM; by default those of the paper's cost, 8.6 dollars for 500.")
]
AnswerTokens = Annotated[int, _described("tokens of one answer.")]
Accuracy = Annotated[
    float, _described("share of sessions that the simulated LLM ranks by title; it ranks the others at random.")
]
Trials = Annotated[int, _described("number of option sets to try for every method that has options.")]
