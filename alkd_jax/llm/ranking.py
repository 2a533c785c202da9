"""Asks a language model for rankings, or about items, in one call, also where an event loop runs, as in a notebook."""

import os
import tempfile
import warnings
from collections.abc import Sequence
from decimal import Decimal

from alkd_jax.checks import check_at_least
from alkd_jax.llm import item_prompts, presets, prompts
from alkd_jax.llm.client import Client
from alkd_jax.llm.collection import collect
from alkd_jax.llm.endpoint import Endpoint
from alkd_jax.llm.ledger import Budget
from alkd_jax.llm.parsing import ParsedAnswer
from alkd_jax.llm.price_list import price_list
from alkd_jax.llm.pricing import Price
from alkd_jax.llm.store import Store


async def rank(
    histories: Sequence[Sequence[int]],
    candidates: Sequence[Sequence[int]],
    titles: Sequence[str],
    *,
    model: str,
    budget_usd: str | Decimal | float | None = None,
    base_url: str = "openai:",
    k: int = 25,
    template: prompts.Template = prompts.ITEMS,
    store: str | os.PathLike[str] | None = None,
    reasoning_effort: str | None = None,
) -> list[tuple[int, ...]]:
    """Has a language model rank the candidates of each history.

    Args:
        histories: N histories of items from 1, the oldest item first.
        candidates: of each history, distinct items to rank.
        titles: V + 1 titles, the first of padding.
        model: as the server calls it.
        budget_usd: dollars at most; needed unless the model is free.
        base_url: address of the server, or a preset such as "ollama:".
        k: number of items to list.
        template: words for the kind of item.
        store: file that keeps the answers, so that none is bought again, and that the budget holds for; without one
            they are not kept.
        reasoning_effort: how much a model that reasons thinks.

    Returns:
        The list of each history, best item first; empty where the model gave no usable one.

    Raises:
        ValueError: the price is unknown, nothing is capped, or an item has no title.
    """
    check_at_least(1, k=k)
    if len(histories) != len(candidates):
        raise ValueError(f"histories are {len(histories)}, candidates {len(candidates)}; expected as many of each")
    questions = [
        prompts.ranking_question(prompts.RankingPrompt(n, tuple(history), tuple(items), k), template, titles)
        for n, (history, items) in enumerate(zip(histories, candidates, strict=True))
    ]
    asked = _ask(questions, model, budget_usd, base_url, store, reasoning_effort)
    return [() if answer is None else answer.items for answer in await asked]


async def items_before(
    items: Sequence[int],
    candidates: Sequence[Sequence[int]],
    titles: Sequence[str],
    *,
    model: str,
    budget_usd: str | Decimal | float | None = None,
    base_url: str = "openai:",
    k: int = 10,
    template: prompts.Template = prompts.ITEMS,
    store: str | os.PathLike[str] | None = None,
    reasoning_effort: str | None = None,
) -> list[tuple[int, ...] | None]:
    """Asks a language model which of some known items go before each item, such as one that counts say nothing of.

    Args:
        items: N items, from 1.
        candidates: of each item, distinct other items, such as
            :func:`alkd_jax.distillation.item_rules.question_candidates` finds; all of them are shown, and recorded in
            the store.
        titles: V + 1 titles, the first of padding.
        model: as the server calls it.
        budget_usd: as of :func:`rank`.
        base_url: as of :func:`rank`.
        k: number of items to name at most.
        template: words for the kind of item.
        store: as of :func:`rank`.
        reasoning_effort: as of :func:`rank`.

    Returns:
        The named items of each, the likeliest first, none where the model says that none of them does; None where it
        gave no usable answer. :func:`alkd_jax.distillation.item_rules.answer_rules` makes rules of them.

    Raises:
        ValueError: as of :func:`rank`.
    """
    if len(items) != len(candidates):
        raise ValueError(f"items are {len(items)}, candidates {len(candidates)}; expected as many of each")
    questions = [
        item_prompts.item_question(item_prompts.ItemPrompt(item, tuple(shown), k), template, titles)
        for item, shown in zip(items, candidates, strict=True)
    ]
    answers = await _ask(questions, model, budget_usd, base_url, store, reasoning_effort)
    return [
        None if answer is None or not answer.usable else item_prompts.named_items(answer.items) for answer in answers
    ]


async def _ask(
    questions: Sequence[prompts.Question],
    model: str,
    budget_usd: str | Decimal | float | None,
    base_url: str,
    store: str | os.PathLike[str] | None,
    reasoning_effort: str | None,
) -> list[ParsedAnswer | None]:
    """Asks the questions that the store has no answer to, and returns the parsed answers of all."""
    preset, listed = presets.resolve(base_url), price_list().get(model)
    is_reasoning = listed is not None and listed.reasons and reasoning_effort not in ("none", "minimal")
    endpoint = Endpoint(
        preset.base_url,
        model,
        api_key_env=preset.api_key_env,
        structured=preset.structured,
        max_tokens_field=preset.max_tokens_field,
        max_output_tokens=4096 if is_reasoning else None,
        temperature=0.0 if listed is None or listed.takes_temperature else None,
        seed=0 if preset.takes_seed else None,
        reasoning_effort=reasoning_effort,
    )
    price = None if listed is None else listed.price
    if endpoint.is_local and (listed is None or preset.is_own):
        price = Price.free()
    budget = Budget(None if budget_usd is None else Decimal(str(budget_usd)))
    with tempfile.TemporaryDirectory() as folder, Store.open(store or f"{folder}/answers.sqlite") as answers:
        client = Client(endpoint, answers, price=price, budget=budget)
        report = await collect(client, questions)
        parsed = [answer for _, _, answer in client.parsed_answers(questions)]
    for text in filter(None, [*report.warnings, report.stopped]):
        warnings.warn(text, stacklevel=3)
    return parsed
