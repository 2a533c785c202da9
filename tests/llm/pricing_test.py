"""Money in exact arithmetic, and a bound of tokens that needs no tokenizer and no network."""

import hashlib
import json
import os
import subprocess
import sys
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alkd_jax.llm import pricing
from alkd_jax.llm.ledger import Budget
from alkd_jax.llm.price_list import PRICES
from alkd_jax.llm.pricing import PICO, Calibration, LongPrompt, Price, estimate
from alkd_jax.llm.token_usage import Usage, read_usage
from tests.helpers import paths


def test_the_prices_of_a_thousand_questions_are_those_on_the_list():
    usage = Usage(3500, 0, 150)
    assert PRICES["gpt-4-turbo-2024-04-09"].cost(usage) * 1000 == Decimal("39.50") * PICO
    assert PRICES["gpt-4o-mini"].cost(usage) * 100_000 == Decimal("61.50") * PICO
    assert PRICES["gpt-4o-mini"].cost(usage, batch=True) * 100_000 == Decimal("30.75") * PICO


prices = st.decimals(min_value="0.000001", max_value="1000", places=6)
tokens = st.integers(0, 10**6)


factors = st.decimals(min_value="1", max_value="3", places=2)


@given(prices, prices, prices, tokens, tokens, tokens, st.none() | st.builds(LongPrompt, tokens, factors, factors))
def test_no_usage_within_the_bounds_costs_more_than_the_worst(
    input_, output, cached_input, prompt, cached, done, long_prompt
):
    price = Price(input_, output, cached_input, long_prompt=long_prompt)
    usage = Usage(prompt, min(cached, prompt), done)
    for batch in (False, True):
        for size in (prompt, 3 * prompt):
            assert price.cost(usage, batch=batch) <= price.max_cost(size, done, batch=batch)


@given(prices, prices, st.lists(st.tuples(tokens, tokens), max_size=30))
def test_sums_are_exact(input_, output, answers):
    price = Price(input_, output)
    total = sum(price.cost(Usage(prompt, 0, done)) for prompt, done in answers)
    exact = sum(prompt * input_ + done * output for prompt, done in answers) * 10**6
    assert total == exact


def test_cached_tokens_and_tiers_have_their_own_price():
    price = Price(Decimal(2), Decimal(8), Decimal("0.5"), tier_factors={"flex": Decimal("0.5"), "priority": Decimal(2)})
    usage = Usage(1_000_000, 400_000, 0)
    assert price.cost(usage) == Decimal("1.4") * PICO
    assert price.cost(usage, tier="flex") == Decimal("0.7") * PICO
    assert price.cost(usage, tier="priority") == price.cost(usage, tier="unheard of") == Decimal("2.8") * PICO


def test_long_prompts_cost_more_in_every_tier():
    price = PRICES["gemini-3.1-pro-preview"]
    short, long = Usage(200_000, 0, 1000), Usage(200_001, 100_000, 1000)
    assert price.cost(short) == (200_000 * 2 + 1000 * 12) * 10**6
    assert price.cost(long) == (100_001 * 4 + 100_000 * Decimal("0.4") + 1000 * 18) * 10**6
    assert price.cost(long, tier="priority") == price.cost(long) * Decimal("1.8")
    sizes = [(600_000, None)] * 3
    many = estimate(sizes, price, max_output_tokens=256, calibration=Calibration(0.3, 100.0, 5))
    assert many.expected == 3 * price.cost(Usage(180_000, 0, 100)), "no single prompt is long"
    assert estimate(sizes, price, max_output_tokens=256).expected == 3 * price.cost(Usage(240_000, 0, 90))


@pytest.mark.parametrize("value", [Decimal("NaN"), Decimal("-1"), Decimal("Infinity"), Decimal("0.1234567")])
def test_a_senseless_price_is_refused(value):
    with pytest.raises(ValueError, match="price"):
        Price(value, Decimal(1))


def test_nothing_is_free_unless_said_so():
    with pytest.raises(ValueError, match="free"):
        Price(Decimal(0), Decimal(0))
    assert Price.free().cost(Usage(10**6, 0, 10**6)) == 0
    assert PRICES.get("gpt-4o-mini-but-not-quite") is None


@pytest.mark.parametrize("usd", [Decimal("NaN"), Decimal(-1)])
def test_a_senseless_budget_is_refused(usd):
    with pytest.raises(ValueError, match="budget usd"):
        Budget(usd=usd)


def test_usage_is_counts_or_nothing():
    good = {"prompt_tokens": 5, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 9}}
    assert read_usage(good) == Usage(14, 9, 2)
    assert read_usage(good | {"prompt_tokens_details": None}) == Usage(5, 0, 2)
    for bad in (None, [], {}, {"prompt_tokens": 1}, good | {"completion_tokens": -1}, good | {"prompt_tokens": 1.0}):
        assert read_usage(bad) is None


def test_an_estimate_is_ordered_and_measured_answers_go_before_guesses():
    price = PRICES["gpt-4o-mini"]
    bounds = [(9000, None)] * 10
    first = estimate(bounds, price, max_output_tokens=256, answered=3)
    assert first.low < first.expected < first.worst
    assert (first.questions, first.answered) == (13, 3)
    counted = estimate([(9000, 3000)] * 10, price, max_output_tokens=256)
    assert "tiktoken" in counted.basis
    assert counted.expected == 10 * price.cost(Usage(3000, 0, pricing.OUTPUT_TOKENS))
    measured = estimate(bounds, price, max_output_tokens=256, calibration=Calibration(0.25, 80.0, 16))
    assert measured.expected == 10 * price.cost(Usage(2250, 0, 80))
    assert estimate([], price, max_output_tokens=256).worst == 0


OFFLINE = """
import socket, sys
if sys.argv[1] == "not installed":
    sys.modules["tiktoken"] = None
def refuse(*_): raise AssertionError("a connection was tried")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
from alkd_jax.llm import pricing, price_list
print(pricing.token_counter("gpt-4o-mini"), pricing.token_counter("no such model"))
print(pricing.estimate([(9000, None)], price_list.PRICES["gpt-4o-mini"], max_output_tokens=256).basis)
"""


@pytest.mark.parametrize("state", ["not installed", "absent", "damaged"])
def test_without_its_file_tiktoken_is_left_alone_and_so_is_a_damaged_file(tmp_path, state):
    for name, _ in pricing._ENCODINGS.values():
        if state == "damaged":
            (tmp_path / name).write_bytes(b"rubbish")
    environment = os.environ | {"TIKTOKEN_CACHE_DIR": str(tmp_path)}
    result = subprocess.run(
        [sys.executable, "-c", OFFLINE, state],
        capture_output=True,
        text=True,
        cwd=paths.ROOT,
        env=environment,
        timeout=600,
    )
    assert result.stdout.splitlines() == ["None None", "0.40 tokens per byte"], result.stderr
    if state == "damaged":
        assert all((tmp_path / name).read_bytes() == b"rubbish" for name, _ in pricing._ENCODINGS.values())


def test_names_and_checksums_of_encodings_are_tiktokens_own():
    source = pytest.importorskip("tiktoken_ext.openai_public")
    import inspect
    import re

    for encoding, (name, digest) in pricing._ENCODINGS.items():
        text = inspect.getsource(getattr(source, encoding))
        assert digest in text
        assert hashlib.sha1(re.search(r'"(https[^"]+)"', text)[1].encode()).hexdigest() == name


def test_bytes_bound_tokens():
    """A byte-level vocabulary of 256 single bytes, the worst there is, made in memory."""
    tiktoken = pytest.importorskip("tiktoken")
    encoding = tiktoken.Encoding(
        "bytes", pat_str=r"[\s\S]", mergeable_ranks={bytes([n]): n for n in range(256)}, special_tokens={}
    )
    from alkd_jax.llm.endpoint import Endpoint
    from tests.helpers.llm_questions import question

    request = Endpoint("http://127.0.0.1:1/v1", "m").request(question(1))
    assert len(encoding.encode(json.dumps(request["body"]["messages"], ensure_ascii=False))) <= request["size"]
