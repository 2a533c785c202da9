"""The question about one item: which of some known items people would have had before it. Titles are untrusted data."""

import array
import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from alkd_jax.checks import check_at_least, check_between
from alkd_jax.llm import prompts
from alkd_jax.llm.prompts import MAX_CANDIDATES, SYSTEM, Question, RenderedPrompt, Template, clean_title, label

KIND: Final = "precede"
NONE: Final = 0
"""The candidate that stands for "none of these" in every question, so that no answer is forced."""
_NONE_TITLE = "(none of these)"
PRECEDE_RULES = (
    "You are asked about one new {noun}. Which of the candidates would people have {verb} shortly before they {verb} "
    "it, the likeliest first? Choose at most {k} different ids, only of candidates that make the new {noun} likely "
    "next; if there are none, choose the id of {none}. The candidates stand in random order.\n"
    'Answer with JSON only: {{"ranking": ["C00", ...]}}.'
)
VERSION = 1
"""Part of every prompt hash; it must be raised with every change of the texts."""


@dataclasses.dataclass(frozen=True)
class ItemPrompt:
    """One question about an item.

    Attributes:
        item: the item asked about.
        candidates: distinct known items, all of which are shown and recorded; their order does not enter the question.
        k: number of items to name at most.
    """

    item: int
    candidates: tuple[int, ...]
    k: int = 10


def item_question(prompt: ItemPrompt, template: Template, titles: Sequence[str], *, seed: int = 0) -> Question:
    """Makes a question about an item; its candidates are those of the prompt and :data:`NONE`.

    Args:
        prompt: item and candidates.
        template: words for the kind of item; its hints, which are about sessions, are not shown.
        titles: V + 1 titles, the first of padding.
        seed: of the order of the labels.

    Returns:
        The question, of the kind "precede" and with the item as session id; the same arguments give the same bytes on
        every machine. An answer that names fewer than k items is complete.

    Raises:
        ValueError: there is no candidate or there are more than 99, one is repeated, is the item itself or has no
            title, or k is below 1.
    """
    _check(prompt, len(titles))
    items = (prompt.item, *prompt.candidates)
    content = array.array("q", items).tobytes()
    content += "\0".join([titles[item] for item in items]).encode("utf-8", "surrogatepass")
    k = min(prompt.k, len(prompt.candidates))
    prompt_hash = hashlib.blake2b(content, key=_template_hash(template, k, seed), digest_size=16).digest()
    return Question(
        KIND, prompt.item, k, prompt_hash, functools.partial(_render, prompt, template, titles, k=k, seed=seed)
    )


def named_items(items: Sequence[int]) -> tuple[int, ...]:
    """Returns the items that an answer names: those before the candidate "none of these", or all."""
    items = tuple(items)
    return items[: items.index(NONE)] if NONE in items else items


def _render(prompt: ItemPrompt, template: Template, titles: Sequence[str], *, k: int, seed: int) -> RenderedPrompt:
    order = prompts.label_order((NONE, *prompt.candidates), (prompt.item,), seed=seed)
    shown = tuple(_NONE_TITLE if item == NONE else clean_title(titles[item]) for item in order)
    words = {"noun": template.noun, "verb": template.verb, "none": _NONE_TITLE}
    system = f"{SYSTEM.format(plural=template.plural)}\n\n{PRECEDE_RULES.format(**words, k=k)}"
    lines = [json.dumps({"id": label(n), "title": title}, ensure_ascii=False) for n, title in enumerate(shown)]
    new = json.dumps({"title": clean_title(titles[prompt.item])}, ensure_ascii=False)
    user = f"New {template.noun}:\n{new}\nCandidates:\n" + "\n".join(lines)
    messages = ({"role": "system", "content": system}, {"role": "user", "content": user})
    return RenderedPrompt(messages, _schema(len(order)), order, shown)


@functools.cache
def _schema(num_candidates: int) -> Mapping[str, Any]:
    entries = {"type": "array", "items": {"type": "string", "enum": [label(n) for n in range(num_candidates)]}}
    return {
        "type": "object",
        "properties": {"ranking": entries},
        "required": ["ranking"],
        "additionalProperties": False,
    }


@functools.lru_cache
def _template_hash(template: Template, k: int, seed: int) -> bytes:
    words = [template.noun, template.plural, template.verb]
    return hashlib.sha256(json.dumps([VERSION, KIND, SYSTEM, PRECEDE_RULES, words, k, seed]).encode()).digest()


def _check(prompt: ItemPrompt, num_titles: int) -> None:
    item, num_candidates = f"item {prompt.item}", len(prompt.candidates)
    if not 1 <= num_candidates < MAX_CANDIDATES:
        raise ValueError(f"{item} has {num_candidates} candidates; expected 1 to {MAX_CANDIDATES - 1}")
    if len({prompt.item, *prompt.candidates}) <= num_candidates:
        raise ValueError(f"{item} has a candidate twice, or is its own; expected distinct other items")
    check_at_least(1, **{f"{item}: k": prompt.k})
    check_between(1, num_titles - 1, **{"item": prompt.item, f"{item}: candidate": min(prompt.candidates)})
    check_between(1, num_titles - 1, **{f"{item}: candidate": max(prompt.candidates)})
