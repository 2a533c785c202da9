"""Prices of models in files: what is built in, what a user adds, and when a model ends."""

import datetime
import json
from decimal import Decimal

import pytest

from alkd_jax.llm import presets
from alkd_jax.llm.price_list import PRICES, price_list, read_prices
from alkd_jax.llm.pricing import PICO
from alkd_jax.llm.token_usage import Usage

TODAY = datetime.date(2026, 11, 29)


def write(folder, models, name="p.json"):
    path = folder / name
    path.write_text(json.dumps({"models": models}))
    return path


def test_a_retired_model_keeps_its_price_and_warns():
    models = price_list()
    assert PRICES["gpt-4-turbo-2024-04-09"].cost(Usage(10**6, 0, 10**6)) == 40 * PICO
    assert "was retired on 2026-10-23" in models["gpt-4-turbo-2024-04-09"].notice("gpt-4-turbo-2024-04-09", TODAY)
    assert "is retired on 2027-01-14" in models["gpt-4.1-mini"].notice("gpt-4.1-mini", TODAY)
    assert models["gpt-4.1-mini"].notice("gpt-4.1-mini", datetime.date(2026, 1, 1)) is None
    assert models["gpt-6-luna"].notice("gpt-6-luna", TODAY) is None


def test_every_built_in_model_has_a_price_that_bounds_its_costs():
    for name, model in price_list().items():
        price = model.price
        assert 0 < price.cost(Usage(100, 0, 10)) <= price.max_cost(100, 10), name
        assert price.cost(Usage(100, 50, 10, 50)) <= price.max_cost(100, 10), name
        assert "checked 2026-11-29" in price.source


def test_a_users_file_goes_before_the_built_in_prices(tmp_path, monkeypatch):
    (tmp_path / "alkd").mkdir()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    write(
        tmp_path / "alkd", {"gpt-6-luna": {"input": "7", "output": 8}, "mine": {"input": 0, "output": 0}}, "prices.json"
    )
    more = write(tmp_path, {"gpt-6-luna": {"input": "9", "output": "9", "tier_factors": {"fast": 3}}})
    assert price_list()["gpt-6-luna"].price.input == 7
    assert price_list()["mine"].price.is_free
    listed = price_list([more])["gpt-6-luna"].price
    assert (listed.input, listed.factor("fast")) == (9, 3)
    assert price_list([more])["gpt-4.1-mini"].price.input == Decimal("0.4")


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ([], "models is"),
        ({"m": 5}, "expected an object with input and output"),
        ({"m": {"input": 1}}, "expected an object with input and output"),
        ({"m": {"input": "much", "output": 1}}, "input is"),
        ({"m": {"input": True, "output": 1}}, "input is"),
        ({"m": {"input": -1, "output": 1}}, "at least 0"),
        ({"m": {"input": 0, "output": 1}}, "more than 0"),
        ({"m": {"input": 1, "output": 1, "cost": 3}}, "cost"),
        ({"m": {"input": 1, "output": 1, "retires": "soon"}}, "soon"),
        ({"m": {"input": 1, "output": 1, "tier_factors": [2]}}, "tier_factors"),
        ({"m": {"input": 1, "output": 1, "long_prompt": {"above": 9}}}, "long_prompt is"),
        ({"m": {"input": 1, "output": 1, "long_prompt": {"above": 9, "input": 0, "output": 1}}}, "a factor from 1"),
    ],
)
def test_a_faulty_file_of_prices_is_named_with_the_model(tmp_path, models, message):
    with pytest.raises(ValueError, match=message) as caught:
        read_prices(write(tmp_path, models))
    assert "p.json" in str(caught.value)


def test_presets_name_servers_and_take_another_address():
    assert presets.resolve("gemini:").api_key_env == "GEMINI_API_KEY"
    assert presets.resolve("vllm:http://gpu1:8000/v1").base_url == "http://gpu1:8000/v1"
    assert presets.resolve("https://example.org/v1").api_key_env == "OPENAI_API_KEY"
    assert set(presets.PRESETS) == {
        *("openai", "openrouter", "gemini", "deepseek", "ollama", "vllm", "llamacpp", "litellm"),
    }
    for wrong in ("olama:", "example.org/v1", "localhost:8000/v1"):
        with pytest.raises(ValueError, match=r"expected http.*openrouter:"):
            presets.resolve(wrong)
