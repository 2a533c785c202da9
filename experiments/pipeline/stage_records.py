"""What a folder records of its finished stages, `stages.json`: their options, and the digests of what they wrote."""

import json
import pathlib
import time
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

from alkd_jax.errors import shown
from alkd_jax.io import digest_of, read_object, write_json

STAGES_FILE = "stages.json"

FOLLOWING = frozenset({"methods", "selections", "lists", "sources", "content", "ties"})
"""Inputs that change when a method is added, when answers have come, when a stage before has run again, or when a
version has another rule for ties. A stage runs again for them without being asked: what it wrote is made again from the
results of other stages."""

PROTOCOL_DEFAULTS = {"seen": "exclude", "targets": "last"}
"""The defaults of :class:`alkd_jax.evaluation.Protocol`, which is not imported, so that this module needs no JAX.
Inputs contain these options only where they have other values, so that older folders continue."""

Records: TypeAlias = dict[str, dict[str, Any]]
"""Stage → "digest" of what it depends on, "inputs" (its options), "outputs", "sha256" of each output, "seconds"."""


def read_records(folder: pathlib.Path) -> Records:
    """Reads the records of a folder's finished stages; records of earlier versions lack "inputs" and "sha256".

    Raises:
        ValueError: the file is damaged.
    """
    file = folder / STAGES_FILE
    if not file.exists():
        return {}
    try:
        records = read_object(file)
        for name, record in records.items():
            match record:
                case {"digest": str(), "outputs": [*outputs], "seconds": int() | float(), **rest} if all(
                    isinstance(output, str) for output in outputs
                ) and isinstance(rest.get("sha256", {}), dict):
                    continue
            raise ValueError(f"{file}: {shown(name)} is {shown(record)}; expected the record of a stage")
    except ValueError as error:
        raise ValueError(f"{error}; put back a copy of it, or delete it to run all stages again") from error
    return records


def state_of(folder: pathlib.Path) -> str:
    """Returns a digest of the records."""
    file = folder / STAGES_FILE
    return digest_of(file) if file.exists() else ""


def await_state(folder: pathlib.Path, state: str, *, seconds: float = 60.0) -> None:
    """Waits until this process sees the records that another one has written, which takes a while on some networks.

    Args:
        folder: of the run.
        state: as the other process has it from :func:`state_of`.
        seconds: after which to give up.

    Raises:
        ValueError: it still sees others.
    """
    end = time.monotonic() + seconds
    while state_of(folder) != state:
        if time.monotonic() > end:
            raise ValueError(f"{folder} is not as process 0 sees it; expected a folder that all processes share")
        time.sleep(0.2)


def write_record(folder: pathlib.Path, name: str, record: Mapping[str, Any] | None) -> None:
    """Replaces the record of one stage; None deletes it."""
    records = read_records(folder)
    former = records.pop(name, None)
    if record is not None or former is not None:
        write_json(folder / STAGES_FILE, records if record is None else records | {name: record})


def digests_of(folder: pathlib.Path, outputs: list[str]) -> dict[str, str]:
    """Returns output → SHA-256 of its content."""
    return {output: digest_of(folder / output) for output in outputs}


def is_complete(folder: pathlib.Path, record: Mapping[str, Any]) -> bool:
    """Whether all outputs of a finished stage are there."""
    return all((folder / output).exists() for output in record["outputs"])


def damage(folder: pathlib.Path, name: str, record: Mapping[str, Any]) -> str | None:
    """Returns the line that names an output which is not as its stage wrote it; None where there is none."""
    for output, digest in record.get("sha256", {}).items():
        if digest_of(folder / output) != digest:
            return (
                f"{folder / output} is damaged or was edited: it is not what the stage {name} wrote; put back a copy "
                "of it, or delete it and repeat the command that made it, or add --overwrite to that command"
            )
    return None


def checked_output(folder: pathlib.Path, output: str) -> pathlib.Path:
    """Returns the path of a stage's output after a comparison with its digest.

    Args:
        folder: of the run.
        output: path of a file or folder in it.

    Raises:
        ValueError: the output is missing, damaged or edited.
    """
    for name, record in read_records(folder).items():
        if output in record["outputs"] and (folder / output).exists():
            if (line := damage(folder, name, {"sha256": _only(record.get("sha256", {}), output)})) is not None:
                raise ValueError(line)
            return folder / output
    if not (folder / output).exists():
        raise ValueError(f"{folder / output} is missing; repeat the command that makes it, which continues")
    return folder / output


def replaced_options(folder: pathlib.Path, planned: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Lists the options by which finished results would be replaced.

    Args:
        folder: of the run.
        planned: stage → the inputs that it is to run on.

    Returns:
        For each of these stages a text with the stage, the options, and their old and new values.
    """
    records, lines = read_records(folder), []
    for name, inputs in planned.items():
        record = records.get(name)
        if record is None or "inputs" not in record or not is_complete(folder, record):
            continue
        # Through JSON, so that tuples are lists on both sides.
        old, new = dict(_flat(record["inputs"])), dict(_flat(json.loads(json.dumps(dict(inputs)))))
        changes = [
            f"{option} {_shown_option(old, option)} → {_shown_option(new, option)}"
            for option in sorted(old.keys() | new.keys())
            if option.partition(".")[0] not in FOLLOWING and old.get(option) != new.get(option)
        ]
        if changes:
            lines.append(f"{name} ({', '.join(changes)})")
    return lines


def add_inputs(folder: pathlib.Path, inputs: Mapping[str, Mapping[str, Any]]) -> None:
    """Adds the options of stages, by name, to records of earlier versions, which lack them."""
    records = read_records(folder)
    completed = {name: {"inputs": inputs[name]} | record for name, record in records.items() if name in inputs}
    if records | completed != records:
        write_json(folder / STAGES_FILE, records | completed)


def forget_changed(folder: pathlib.Path, planned: Mapping[str, Mapping[str, Any]]) -> None:
    """Deletes the records of the stages that other options would replace, so that they run again."""
    changed = [name for name in planned if replaced_options(folder, {name: planned[name]})]
    records = read_records(folder)
    write_json(folder / STAGES_FILE, {name: record for name, record in records.items() if name not in changed})


def _only(digests: Mapping[str, str], output: str) -> dict[str, str]:
    return {output: digests[output]} if output in digests else {}


def _shown_option(inputs: Mapping[str, Any], option: str) -> str:
    """Returns the value of an option as text; one that inputs leave out has its default."""
    values = PROTOCOL_DEFAULTS | dict(inputs)
    return shown(values[option], width=40) if option in values else "default"


def _flat(inputs: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the values of nested options with names such as `row.recipe.max_steps`."""
    for name, value in inputs.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
