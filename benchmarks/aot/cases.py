"""Cases: the name of a program and its sizes, as in ``top_k:V=1e5,B=256,k=100,D=64``."""

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any

_TEXT = "text"

PARAMETERS: Mapping[str, Mapping[str, Any]] = {
    "top_k": {"V": int, "B": int, "k": int, "D": 64, "precision": "highest"},
    "ranks": {"V": int, "B": int, "D": 64, "precision": "highest"},
    "interval": {
        "backbone": _TEXT,
        "loss": "in_batch_bpr",
        "targets": "last",
        "width": int,
        "V": 8475,
        "seeds": 1,
        "steps": 20,
    },
    "validation": {"backbone": _TEXT, "width": int, "V": 8475, "seeds": 1},
    "evaluation": {"backbone": _TEXT, "width": int, "V": 8475},
    "update": {"optimizer": _TEXT, "V": int, "D": 64, "ids": 4096, "dtype": "float32"},
    "fit_large": {"optimizer": _TEXT, "V": int, "D": 64, "dtype": "float32", "part": "step", "steps": 10},
    "game": {"N": int},
    "proportional_game": {"N": int},
    "select": {"N": int, "num": int},
    "loss": {"name": _TEXT, "V": int, "B": 1024, "D": 64},
    "method": {"name": _TEXT, "backbone": "fpmc", "V": 8475, "steps": 20},
    "sharded": {"program": _TEXT, "V": 1_000_000, "D": 64, "devices": 8},
}
"""Kind of program → its parameters: a type where a value must be given, else the default; "text" stands for a name."""


@dataclasses.dataclass(frozen=True)
class Case:
    """A program and its sizes.

    Attributes:
        kind: a key of :data:`PARAMETERS`.
        options: value of every parameter.
    """

    kind: str
    options: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.kind}:{','.join(f'{name}={value}' for name, value in self.options.items())}"

    def __hash__(self) -> int:
        return hash(str(self))

    def __getitem__(self, name: str) -> Any:
        return self.options[name]


def parse_case(text: str) -> Case:
    """Parses a case.

    Args:
        text: kind and parameters, as in ``ranks:V=1e6,B=512``.

    Raises:
        ValueError: the kind or a parameter is unknown, one is missing, or a size is no whole number of at least 1.
    """
    kind, _, rest = text.partition(":")
    if kind not in PARAMETERS:
        raise ValueError(f"case is {text!r}; expected {_suggestion(kind, PARAMETERS)}, each followed by : and sizes")
    parameters = PARAMETERS[kind]
    given: dict[str, str] = {}
    for part in filter(None, rest.split(",")):
        name, equals, value = part.partition("=")
        if not equals or name not in parameters or name in given:
            raise ValueError(f"case {kind} has {part!r}; expected NAME=VALUE, once for each of {', '.join(parameters)}")
        given[name] = value
    missing = [name for name, default in parameters.items() if default in (int, _TEXT) and name not in given]
    if missing:
        raise ValueError(f"case is {text!r} without {', '.join(missing)}; expected all of {', '.join(parameters)}")
    options = {name: _value(kind, name, given[name], d) if name in given else d for name, d in parameters.items()}
    return Case(kind, options)


def _value(kind: str, name: str, text: str, default: Any) -> Any:
    if isinstance(default, str):
        return text
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not (number >= 1 and number.is_integer()):
        raise ValueError(f"{name} of case {kind} is {text!r}; expected a whole number of at least 1")
    return int(number)


def _suggestion(name: str, known: Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(name, known, 1)
    return f"{close[0]} or another of {', '.join(known)}" if close else f"one of {', '.join(known)}"


def default_cases() -> list[Case]:
    """Returns every public program at the sizes of the paper's data, and at the sizes of large catalogues."""
    backbones = ("fpmc", "stamp", "attmix", "late_interaction")
    causal = ("gru4rec", "sasrec", "gsasrec", "esasrec", "hstu")
    sequential = (*causal, "narm", "srgnn", "core")
    other_losses = ("in_batch_softmax", "softmax", "sampled_softmax")
    texts = [
        *(f"top_k:V={v},B={b},k={k}" for v, b, k in (("1e4", 512, 20), ("1e5", 256, 100), ("1e6", 4096, 10))),
        "top_k:V=1e7,B=64,k=100",
        *(f"ranks:V={v},B=512" for v in ("8475", "26138", "1e6")),
        *(
            f"interval:backbone={backbone},width={width},seeds={seeds}"
            for backbone in backbones
            for width in (10, 100)
            for seeds in (1, 5)
        ),
        *(f"interval:backbone=fpmc,width={width},V=26138" for width in (10, 100)),
        *(f"interval:backbone={backbone},width={width}" for backbone in sequential for width in (10, 64)),
        *(f"interval:backbone={backbone},loss=sampled_softmax,targets=all,width=64" for backbone in (*causal, "core")),
        *(f"interval:backbone=fpmc,width=10,loss={loss}" for loss in other_losses),
        *(f"validation:backbone={backbone},width=10" for backbone in (*backbones, *sequential)),
        *(f"evaluation:backbone={backbone},width=100" for backbone in (*backbones, *sequential)),
        "game:N=12323",
        "game:N=1e7",
        "proportional_game:N=1e7",
        "select:N=1e8,num=500",
        *(f"update:optimizer={name},V=1e7" for name in ("adam", "adagrad", "rowwise_adagrad", "sgd")),
        *(f"fit_large:optimizer={name},V=1e7" for name in ("adam", "adagrad", "rowwise_adagrad", "sgd")),
        *(f"fit_large:optimizer=adam,V=1e7,dtype=bfloat16,part={part}" for part in ("step", "init", "validation")),
        *(f"loss:name={name},V=1e5" for name in ("chunked_softmax", "softmax")),
        *(f"method:name={name}" for name in ("DE", "FTD", "HTD", "unKD", "DSL", "DLLM2Rec", "RD", "ALKDRec")),
        *(
            f"sharded:program={program}"
            for program in ("interval", "fit_large", "update", "ranks", "top_k", "select", "chunked_softmax")
        ),
    ]
    return [parse_case(text) for text in texts]
