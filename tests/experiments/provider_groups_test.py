"""What commands do about the kinds of answers and servers in `tests/llm/provider_groups_test.py`, by their numbers."""

import asyncio
import datetime
import json
import re

import pytest

import alkd_jax as alkd
from alkd_jax.io import read_json, write_json
from alkd_jax.llm.price_list import price_list
from experiments import reproduce, summarize_hints
from experiments.pipeline.llm_options import LLMSettings
from tests.helpers.batch_api import BatchApi
from tests.helpers.fault_server import FaultServer, completion, faultless, http, labels_of, ranked, titles_of


def paid(server, prompt=150_000, done=600_000):
    """Dollars on the server's bill at the list price of gpt-4o-mini."""
    return sum(tokens * prompt + answered * done for _, tokens, answered in server.bill) / 1e12


def status(command, tmp_path):
    assert command(f"status --json {tmp_path / 's.json'}")[0] == 0
    return read_json(tmp_path / "s.json")


def test_group_09_batches_are_cancelled_and_waited_for(folder, command, tmp_path):
    api = BatchApi(lambda lines, call: ("in_progress", None, None))
    with FaultServer(routes=api) as server:
        line = f"run --batch --base-url {server.url} --model gpt-4o-mini --budget-usd 1"
        assert command(line)[0] == 0
        assert status(command, tmp_path)["reserved_usd"] > 0
        assert "cancelled: 1" in command("batch cancel --wait")[1]
        assert status(command, tmp_path)["reserved_usd"] == 0
        api.outcome = BatchApi().outcome
        assert "'answers': 20" in command(f"{line} --wait")[1]
        numbers = status(command, tmp_path)
        assert numbers["paid_usd"] == pytest.approx(paid(server) / 2)
        assert (numbers["usable"], numbers["possible_usd"], numbers["reserved_usd"]) == (20, 0, 0)


def test_group_12_a_server_on_this_machine_is_free(folder, command, tmp_path):
    with FaultServer() as server:
        code, output = command(f"run --base-url {server.url} --model any")
        assert (code, len(server.calls), "nothing is capped" in output) == (0, 20, False)
        assert status(command, tmp_path)["paid_usd"] == 0


def test_group_16_fields_are_left_out_added_and_bounded(folder, command):
    with FaultServer() as server:
        server_options = f"--base-url {server.url} --model any"
        line = f"{server_options} --cases 3 --max-output-tokens 333"
        assert command(line, main=summarize_hints.main)[0] == 0
        assert server.calls[0].body["max_completion_tokens"] == 333
        more = '--seed none --temperature none --reasoning-effort low --extra-body {"top_k":1}'
        assert command(f"run {server_options} {more} --max-output-tokens 444")[0] == 0
        body = server.calls[-1].body
        assert ("seed" in body, "temperature" in body) == (False, False)
        assert (body["reasoning_effort"], body["top_k"], body["max_completion_tokens"]) == ("low", 1, 444)


def test_group_18_few_requests_at_once_on_this_machine(tmp_path):
    assert LLMSettings(tmp_path, "any", base_url="vllm:").limits.in_flight[1] == 4


def test_group_20_prices_are_dated_and_users_come_first(folder, command, tmp_path):
    today = datetime.date.today()
    assert price_list().get("gpt-6-luna").notice("gpt-6-luna", today) is None
    assert LLMSettings(tmp_path, "gpt-6-luna").price.output > 0
    output = command("estimate --model gpt-4-turbo-2024-04-09")[1]
    assert "was retired on 2026-10-23" in output
    write_json(tmp_path / "prices.json", {"models": {"own": {"input": "0.15", "output": "0.60"}}})
    with FaultServer() as server:
        line = f"run --base-url {server.url} --model own --budget-usd 1 --prices {tmp_path / 'prices.json'}"
        assert command(line)[0] == 0
        assert status(command, tmp_path)["paid_usd"] == pytest.approx(paid(server))


def test_group_21_options_wherever_a_model_matters(folder, command, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MY_KEY", "sk-mine-0123456789")
    with FaultServer() as server:
        address = server.url.replace("127.0.0.1", "0.0.0.0") + "?api-version=2"
        assert command(f"run --base-url {address} --model first --api-key-env MY_KEY")[0] == 0
        assert server.calls[0].path.endswith("/chat/completions?api-version=2")
        assert server.calls[0].headers["authorization"] == "Bearer sk-mine-0123456789"
        assert command(f"pilot --base-url {server.url} --model second --pilot 3")[0] == 0
        assert "20 answers to 20 questions" in command("export")[1]
        assert "3 answers to 20 questions" in command("export --model second")[1]
    options = "--model gpt-6-luna --prices p.json --api-key-env MY_KEY"
    line = f"reproduce --data synthetic --backbone fpmc --teacher openai --out {tmp_path / 'new'} {options}"

    def stop(settings):
        assert (settings.model, settings.api_key_env, settings.prices.name) == ("gpt-6-luna", "MY_KEY", "p.json")
        raise reproduce.UnansweredError("no model was asked yet")

    monkeypatch.setattr(reproduce, "run_pipeline", stop)
    monkeypatch.setattr("sys.argv", line.split())
    with pytest.raises(SystemExit):
        reproduce.main()
    output = capsys.readouterr().err
    assert ("no model was asked yet" in output, "error:" in output) == (True, False)


def test_group_22_questions_answers_and_bias_are_shown(folder, command):
    def echo(call):
        return [http(completion(call, json.dumps({"ranking": labels_of(call.body)[:25]})))]

    with FaultServer(echo) as server:
        options = f"--base-url {server.url} --model any"
        assert "--- no answer yet" in command(f"show {options} --number 1")[1]
        assert command(f"run {options}")[0] == 0
        output = command(f"show {options} --number 1")[1]
        assert all(text in output for text in ("--- user", "--- read as: ok", "position bias: +1.000"))
        assert re.search(r"warning: .* in the order in which they were shown", output)
        assert "any: 20 requests" in output


def test_group_22_presets_and_a_call_for_notebooks(tmp_path):
    for preset in ("openai:", "openrouter:", "gemini:", "deepseek:", "ollama:", "vllm:", "llamacpp:", "litellm:"):
        endpoint = LLMSettings(tmp_path, "m", base_url=preset).endpoint
        assert endpoint.api_key_env.endswith("_API_KEY")
        assert endpoint.is_local == (preset in ("ollama:", "vllm:", "llamacpp:", "litellm:"))
    titles = ("", *(f"Title {n}" for n in range(1, 60)))
    with FaultServer(faultless) as server:

        async def cell():
            return await alkd.llm.rank([(1, 2)], [range(10, 40)], titles, model="any", base_url=server.url, k=3)

        (answer,) = asyncio.run(cell())
        body = server.calls[0].body
        shown = titles_of(body)
        assert [titles[item] for item in answer] == [shown[label] for label in ranked(body, 3)["ranking"]]
