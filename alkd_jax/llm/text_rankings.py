"""Finds the ranking in a text that is no JSON: a table, the lines of a list, or labels in a row.

A text may hold several lists, such as the candidates, an analysis and the ranking. One is taken only where nothing
else in the text could be the ranking as well.
"""

import re
from collections.abc import Sequence

from alkd_jax.llm.entries import Catalogue, UnclearError, ascii_digits, labels_in
from alkd_jax.llm.label_runs import find_runs
from alkd_jax.llm.line_lists import find_line_lists
from alkd_jax.llm.orders import TextList, agrees
from alkd_jax.llm.remarks import is_aside, is_positive
from alkd_jax.llm.tables import find_tables

_TITLE_TAG = re.compile(r"<(title|name|reason|why)>[^<>]*</\1>", re.IGNORECASE)

_HIGH = re.compile(r"\b(?:high|strong|top|best|very|most|excellent|definite)|\bS\b", re.IGNORECASE)
_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{(?P<inside>(?:[^{}]|\{[^{}]*\})*)\}")
_COMMAND = re.compile(r"\\(?:text(?:bf|tt|it|rm|sf)?|math(?:rm|bf|tt|sf|it)|emph|underline)\s*\{(?P<inside>[^{}]*)\}")
_INLINE_TAG = re.compile(r"</?(?:b|strong|i|em|u|span|code|p|mark|small|h[1-6])(?:\s[^<>]*)?>|<br\s*/?>", re.IGNORECASE)
_LATE_RANK = re.compile(
    r"<(\w+)\b([^<>]*?\b(?:id|label)\s*=\s*[\"'][^\"'<>]*[\"'][^<>]*?)\s((?:rank|position|pos|place|order|number|rang|index|value)\s*=\s*[\"'][0-9]{1,3}[\"'])([^<>]*)>",
    re.IGNORECASE,
)
_ESCAPED = re.compile(r"\\([`*_{}\[\]()#+.!|>~-])")
_ENTITIES = {"&nbsp;": " ", "&ndash;": "–", "&mdash;": "—", "&gt;": ">", "&rarr;": "→", "&middot;": "·", "&bull;": "•"}


def read_text(text: str, catalogue: Catalogue) -> list[int | None] | None:
    """Finds the ranking in a text.

    Args:
        text: without reasoning.
        catalogue: of the question.

    Returns:
        The numbers of the candidates, best first, None for entries that name none; None where there is no list.

    Raises:
        UnclearError: several lists or orders could be meant.
    """
    text = ascii_digits(_without_tags(_ESCAPED.sub(r"\1", _without_latex(text))))
    lines = text.splitlines()
    blocks = list(find_tables(lines, catalogue))
    try:
        blocks += find_line_lists(lines, catalogue)
    except UnclearError:
        if not any(catalogue.is_full(block.order) for block in blocks):
            raise
    is_full = any(catalogue.is_full(block.order) for block in blocks)
    blocks += [block for block in find_runs(text, catalogue) if not is_full or catalogue.is_full(block.order)]
    known = [block for block in blocks if any(number is not None for number in block.order)]
    order = _choose(known, catalogue)
    named = {number for number in labels_in(text) if number < catalogue.size}
    if order is not None and not any(catalogue.is_full(block.order) for block in known) and not named <= set(order):
        # Labels are left over, so that a part of the list may have been missed.
        raise UnclearError("short list")
    return order


def _choose(blocks: Sequence[TextList], catalogue: Catalogue) -> list[int | None] | None:
    """Chooses the only list that can be the ranking."""
    usable = [block for block in blocks if not catalogue.is_echo(block.distinct)]
    neutral = [block for block in usable if not is_aside(block.heading)]
    if not neutral:
        return None
    full = [block for block in neutral if catalogue.is_full(block.order)]
    if full:
        orders = {tuple(block.distinct[: catalogue.k]) for block in full}
        if len(orders) > 1:
            full = [block for block in full if is_positive(block.heading)]
            if len({tuple(block.distinct[: catalogue.k]) for block in full}) != 1 or full[-1] is not neutral[-1]:
                raise UnclearError("several lists")
        rest = neutral[neutral.index(full[-1]) + 1 :]
        if any(is_positive(block.heading) and not agrees(block.order, full[-1].order) for block in rest):
            raise UnclearError("several lists")
        return full[-1].order
    if any(block.is_by_title for block in neutral):
        # A title that was changed a little would be missing unnoticed.
        raise UnclearError("short list of titles")
    if any(_HIGH.search(block.heading) for block in neutral[1:]) and not _HIGH.search(neutral[0].heading):
        raise UnclearError("several lists")
    merged = [number for block in neutral for number in block.order]
    if len(neutral) > 1:
        distinct = [number for block in neutral for number in block.distinct]
        is_restarted = any(block.is_numbered for block in neutral[1:])
        if is_restarted or len(set(distinct)) != len(distinct) or len(distinct) != catalogue.k:
            raise UnclearError("several lists")
    return merged


def _without_latex(text: str) -> str:
    """Writes a text of LaTeX plainly; what is boxed is the answer."""
    if "\\" not in text:
        return text
    text = _COMMAND.sub(lambda match: match["inside"], _COMMAND.sub(lambda match: match["inside"], text))
    text = _BOX.sub(lambda match: f"Final answer: {match['inside'].strip()}\n", text)
    return re.sub(r"\\item\b", "-", text.replace("\\\\", "\n"))


def _without_tags(text: str) -> str:
    """Writes the elements of HTML and XML as lines, with the ranks in their attributes before them."""
    if "</" not in text and "/>" not in text:
        return text
    text = _INLINE_TAG.sub(lambda match: "\n" if match[0][:2].lower() in ("<p", "<h") or "br" in match[0] else "", text)
    text = re.sub(r"<(/?)(?:position|pos|place|order|number|rang)>", r"<\1rank>", text, flags=re.IGNORECASE)
    for entity, sign in _ENTITIES.items():
        text = text.replace(entity, sign)
    text = _LATE_RANK.sub(r"<\1 \3 \2\4>", text)
    text = re.sub(r"<\w+[^<>]*\b(?:rank|position|pos|place|order|number|rang|index|value)\s*=\s*[\"']?([0-9]{1,3})\b[^<>]*?\b(?:id|label)\s*=\s*[\"']?([^\"'<>\s/]+)[^<>]*>", r"\n\1. \2 ", text)  # fmt: skip  # noqa: E501
    text = re.sub(
        r"<\w+[^<>]*\b(?:rank|position|pos|place|order|number|rang|index|value)\s*=\s*[\"']?([0-9]{1,3})\b[^<>]*>",
        r"\n\1. ",
        text,
    )
    items = [item for item in re.split(r"</(?:item|candidate|entry|movie|game|product)>", text) if "<rank>" in item]
    if items:
        ranks = [re.search(r"<rank>\s*([0-9]{1,3})\s*</rank>", item) for item in items]
        labels = [labels_in(_TITLE_TAG.sub("", item)) for item in items]
        if None in ranks or any(len(found) != 1 for found in labels):
            raise UnclearError("ranks")
        pairs = zip(ranks, labels, strict=True)
        return "\n".join(f"{rank[1]}. C{found[0]}" for rank, found in pairs if rank is not None)
    text = re.sub(r"<\w+\s+(?:id|label)\s*=\s*[\"']?([^\"'<>\s/]+)[^<>]*>", r"\n\1 ", text)
    text = _TITLE_TAG.sub(" ", text)
    return re.sub(
        r"\n\s*\n+",
        "\n",
        re.sub(r"</?(?:item|id|label|candidate|ranking|list|entry|li|ol|ul|movie|game)\b[^<>]*>", "\n", text),
    )
