"""The options that several commands share, in one wording, and the choices that `--help` lists.

A value that is none of the choices is refused by the code that reads it, in one line. `light_options` has the options
that need none of the library's packages.
"""

import pathlib
from typing import Annotated, Any

from alkd_jax import models
from alkd_jax.data.readers.registry import READERS
from alkd_jax.evaluation.protocol import SEEN
from alkd_jax.evaluation.queries import TARGETS
from alkd_jax.ops.precision import PRECISIONS
from alkd_jax.serving import manifest

from .light_options import OWN, choices, described
from .rules import RULES, STOPPING


def sources(result: Any = None) -> str:
    """Returns the forms of the sources of data, for help.

    Args:
        result: type that a source gives; by default any.
    """
    forms = [reader.form for reader in READERS.values() if result is None or reader.result is result]
    return f"{', '.join(forms)}, or a reader of your own as {OWN}[:ARGUMENT ...]"


_SOURCES = f"{sources()}. Raw data are prepared in memory by the recipe of their kind."
_BACKBONES = "see docs/own_parts.md for a class of your own."
Data = Annotated[str, described(f"source of the data: {_SOURCES}", "SOURCE")]
AllData = Annotated[tuple[str, ...], described(f"sources of the data, one or more: {_SOURCES}", "SOURCE [SOURCE ...]")]
Backbone = Annotated[
    str, choices(models.BACKBONES, own=True, help=f"architecture of teacher and students; {_BACKBONES}")
]
Backbones = Annotated[
    tuple[str, ...],
    choices(models.BACKBONES, own=True, several=True, help=f"architectures of teacher and students; {_BACKBONES}"),
]
TeacherBackbone = Annotated[
    str | None,
    choices(
        models.BACKBONES, own=True, help=f"architecture of the teacher, by default that of the students; {_BACKBONES}"
    ),
]
Mode = Annotated[
    str,
    described(
        '"clean"; "released" to repeat the authors\' code with its bugs; or single rules of it, separated by commas: '
        f"{'; '.join(f'{name}, {meaning}' for name, meaning in RULES.items())}. With {STOPPING}, the test sessions "
        "decide when training stops, which shows what such a choice adds.",
        "clean|released|RULE[,RULE ...]",
    ),
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
    pathlib.Path | None, described("file of recorded lists that replay reads instead of the authors' file.", "FILE")
]
ProfileVectors = Annotated[
    pathlib.Path | None,
    described(
        "file of vectors of training sessions, such as an encoder's of profiles that an LLM wrote of them, for the "
        'method "Profiles"; see docs/item_vectors.md.',
        "FILE",
    ),
]
Budget = Annotated[
    int | None,
    described(
        "number of sessions that the LLM ranks, per selection; by default the paper's, 750 for FPMC on Games and 500 "
        "otherwise, but at most a fifth of the training sessions.",
        "INT",
    ),
]
TeacherDim = Annotated[int, described("width of the teacher.")]
Seeds = Annotated[int, described("number of seeds: of teachers and students that are trained, all in one program.")]
MaxSteps = Annotated[int, described("maximum number of training steps of teacher, student and distillation, each.")]
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
    described(
        "devices to compute on: batches are sharded along the first axis, item tables along the second; by default one "
        "device. A run may continue on another mesh.",
        "data=N,model=M",
    ),
]
Distributed = Annotated[
    str | None,
    described(
        "several processes that compute one result together, each started with this command: auto under Slurm, MPI, on "
        "a TPU slice and in Kubernetes, otherwise the address of process 0, the number of processes, and the index of "
        "this one; see docs/several_machines.md. Process 0 writes and prints.",
        "auto|HOST:PORT,COUNT,INDEX",
    ),
]
Overwrite = Annotated[
    bool,
    described(
        "replace finished results in the folder, where they were made with other options or are damaged; without it "
        "such a command is refused, and lists them. More methods never replace results, and more seeds do, since one "
        "program trains the students of all seeds."
    ),
]
WeightsType = Annotated[
    str, choices(manifest.DTYPES, help="type of the exported weights; float16 takes half the size.")
]
PromptTokens = Annotated[
    int, described("tokens of one question to the LLM; by default those of the paper's cost, 8.6 dollars for 500.")
]
AnswerTokens = Annotated[int, described("tokens of one answer.")]
Accuracy = Annotated[
    float, described("share of sessions that the simulated LLM ranks by title; it ranks the others at random.")
]
Trials = Annotated[int, described("number of option sets to try for every method that has options.")]
