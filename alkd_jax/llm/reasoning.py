"""Separates the answer in a text from the reasoning before it, by the marks of chat templates and by custom.

Reasoning names candidates in the order in which they are thought about, so that nothing in it is an answer.
"""

import re
from collections.abc import Sequence

_WORDS = (
    r"(?:seed:|antml:|minimax:)?(?:think(?:ing)?|thoughts?|reason(?:ing)?|reflection|analysis|scratch_?pad|inner_monologue"
    r"|deliberation|cot|chain_of_thought|reasoning_content|working_out|plan)"
)
_OPEN = re.compile(
    rf"<\|?{_WORDS}(?:\s[^<>]*)?\|?>|\[{_WORDS}\]|◁{_WORDS}▷|<\|(?:START_THINKING|begin_of_thought|inner_prefix)\|>"
    r"|<start_working_out>|<\|channel\|?>\s*(?:analysis|thought|commentary)|<unused94>\s*thought",
    re.IGNORECASE,
)
_CLOSE = re.compile(
    rf"<\|?/{_WORDS}\|?>|\[/{_WORDS}\]|◁/{_WORDS}▷|<\|(?:END_THINKING|end_of_thought|inner_suffix|/think)\|>"
    r"|<end_working_out>|<channel\|>|<unused95>|<\|channel\|>\s*final[^\n<]*(?:<\|constrain\|>[^<]*)?<\|message\|>"
    r"|assistantfinal|\[BEGIN FINAL RESPONSE\]|<\|begin_of_solution\|>|<\|START_RESPONSE\|>",
    re.IGNORECASE,
)
_CLOSED = re.compile(rf"(?:{_OPEN.pattern}).*?(?:{_CLOSE.pattern})", re.IGNORECASE | re.DOTALL)
_END_MARKS = re.compile(
    r"<\|(?:im_end|end|return|eot_id|endoftext|end_of_text|END_RESPONSE|end_of_solution|END_OF_TURN_TOKEN|call"
    r"|assistant|start|message|end_of_turn|eom_id|begin_of_box|end_of_box)\|>|</s>|<end_of_turn>|<eos>"
    r"|\[END FINAL RESPONSE\]|</?(?:answer|response|output|final|final_answer|solution|result|ranking)>"
    r"|<｜end▁of▁sentence｜>",
    re.IGNORECASE,
)


def split_reasoning(text: str, titles: Sequence[str] = ()) -> tuple[str, int, bool]:
    """Returns what follows the last mark that ends a reasoning.

    Args:
        text: of an answer.
        titles: shown titles, whose own marks mean nothing.

    Returns:
        The answer without marks, the number of marks that ended a reasoning before it, and whether another reasoning
        begins in the answer that has no end.
    """
    marked = [title for title in titles if _OPEN.search(title) or _CLOSE.search(title) or _END_MARKS.search(title)]
    shown: list[str] = []

    def hide(match: re.Match[str]) -> str:
        shown.append(match[0])
        return f"\ue000{len(shown) - 1}\ue001"

    if marked:
        text = re.sub("|".join(map(re.escape, sorted(marked, key=len, reverse=True))), hide, text, flags=re.IGNORECASE)
    closes = list(_CLOSE.finditer(text))
    answer = text[closes[-1].end() :] if closes else text
    if closes and not _END_MARKS.sub("", answer).strip():
        # Reasoning that was written down after the answer.
        answer = _CLOSE.sub("", _CLOSED.sub("", text))
    opening = _OPEN.search(answer)
    if opening is not None:
        answer = answer[: opening.start()] + answer[opening.end() :]
    answer = _END_MARKS.sub("\n", answer)
    if shown:
        answer = re.sub("\ue000([0-9]+)\ue001", lambda match: shown[int(match[1])], answer)
    return answer, len(closes), opening is not None
