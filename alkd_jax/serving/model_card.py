"""The model card of a shipped student, README.md: what it is, how good, what it was trained on, how to load it."""

import dataclasses
import json
from collections.abc import Mapping, Sequence

from alkd_jax.errors import markdown, printable
from alkd_jax.serving import manifest

FILE = "README.md"

_TAGS = ("alkd_jax", "recommender-systems", "session-based-recommendation")


@dataclasses.dataclass(frozen=True)
class Card:
    """What the card of a student says beside the content of its `config.json`; names and values may be of any text.

    Attributes:
        method: the student in words, such as "ALKDRec, seed 2".
        protocol: how it was evaluated.
        metrics: name → value on the test sessions; none where it was not evaluated.
        language_model: what is known of the language model whose lists it learned: model, prompt, cost, failures; empty
            where no language model was asked.
    """

    method: str = ""
    protocol: str = ""
    metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)
    language_model: Mapping[str, str] = dataclasses.field(default_factory=dict)


def as_markdown(config: manifest.Config, card: Card) -> str:
    """Returns the card as Markdown with a YAML header, in which no text out of data acts as markup.

    Args:
        config: of the student.
        card: what else is known.
    """
    student = {
        "backbone": config.backbone,
        "width": str(config.dim),
        "items": f"{config.num_items:,}",
        "items of a session that it reads": str(config.length),
        "type of the weights": config.dtype,
        "bytes of the weights": f"{config.files[manifest.WEIGHTS]['bytes']:,}",
    }
    metrics = {name: f"{value:.4f}" for name, value in card.metrics.items()}
    data = {"dataset": config.dataset, "fingerprint": config.fingerprint}
    parts = [
        _header(config),
        "# A session-based recommender",
        f"A student of alkd_jax that recommends the next item of a session{': ' * bool(card.method)}"
        f"{markdown(card.method)}.",
        _table(student),
        "## How good it is",
        markdown(card.protocol) or "It was not evaluated when it was exported.",
        *([_table(metrics)] if metrics else []),
        "## What it was trained on",
        _table(data),
        "## Language model",
        _table(card.language_model) if card.language_model else "No language model was asked.",
        "## How to load it",
        "```python\nfrom alkd_jax.serving.recommender import Recommender\n\n"
        'student = Recommender.load("FOLDER")  # or Recommender.from_hub("OWNER/NAME")\n'
        'for item, title, score in student.recommend(["raw id of an item"], k=10):\n'
        "    print(item, title, score)\n```",
        "## Licence",
        "The code of alkd_jax is licensed under Apache-2.0. What may be done with the weights and the catalogue also "
        "depends on the terms of the data.",
    ]
    return "\n\n".join(parts) + "\n"


def _header(config: manifest.Config) -> str:
    """Returns the YAML header; a string of JSON is one of YAML, too."""
    lines = ["library_name: alkd_jax", "tags:", *(f"- {tag}" for tag in _TAGS)]
    lines.append(f"dataset: {json.dumps(printable(config.dataset))}")
    return "\n".join(["---", *lines, "---"])


def _table(rows: Mapping[str, str]) -> str:
    """Returns a table of names and values."""
    lines: Sequence[str] = [f"| {markdown(name)} | {markdown(value)} |" for name, value in rows.items()]
    return "\n".join(["| | |", "|---|---|", *lines])
