"""Models and servers on the command line: presets, prices, keys, batches, and the answers of several models."""

import json
import subprocess
import sys

import pytest

from alkd_jax.io import read_json
from experiments import reproduce
from experiments.pipeline.llm_options import LLMSettings
from tests.helpers import paths
from tests.helpers.batch_api import BatchApi, faulty
from tests.helpers.fault_server import FaultServer, faultless
from tests.helpers.providers import NO_TEMPERATURE, refusing


def settings(folder, **options):
    return LLMSettings(folder, options.pop("model", "gpt-6-luna"), **options)


def test_presets_set_address_key_and_what_the_server_takes(tmp_path):
    gemini = settings(tmp_path, model="gemini-3.8-flash", base_url="gemini:").endpoint
    assert (gemini.api_key_env, gemini.max_tokens_field, gemini.seed) == ("GEMINI_API_KEY", "max_tokens", None)
    # The list of prices says that this model takes no temperature, and that it reasons.
    assert (gemini.temperature, gemini.max_tokens()) == (None, 4096)
    assert settings(tmp_path, base_url="deepseek:", model="deepseek-flash").endpoint.structured == "json_object"
    own = settings(tmp_path, base_url="deepseek:", seed="3", structured="none", api_key_env="MINE", temperature="0.5")
    assert (own.endpoint.seed, own.endpoint.structured) == (3, "none")
    assert (own.endpoint.api_key_env, own.endpoint.temperature) == ("MINE", 0.5)
    assert settings(tmp_path, reasoning_effort="none").endpoint.max_tokens() == 256
    assert settings(tmp_path, seed="none").endpoint.seed is None


def test_what_costs_nothing_and_how_many_are_asked_at_once(tmp_path):
    ollama = settings(tmp_path, base_url="ollama:", model="gpt-4o-mini")
    assert ollama.price.is_free
    assert ollama.limits.in_flight == (1, 4, 64)
    assert settings(tmp_path, base_url="ollama:http://127.0.0.1:9/v1", model="any").price.is_free
    assert settings(tmp_path, base_url="https://example.org/v1", price_input="0", price_output="0").price.is_free
    assert settings(tmp_path).price.output * 2 == 1
    assert settings(tmp_path).limits.in_flight == (1, 20, 64)
    assert settings(tmp_path, timeout=600).limits.total_s == 600


def test_a_server_on_this_machine_needs_no_cap_and_says_what_it_refuses(folder, command):
    with FaultServer(refusing(faultless, NO_TEMPERATURE)) as server:
        code, output = command(f"run --base-url {server.url} --model any --pilot 4")
        assert (code, len(server.calls)) == (0, 21)
        assert "warning: the server refuses temperature: it is left out" in output
        assert "20 questions: 20 ok" in output
        code, output = command(f"run --base-url vllm:{server.url} --model any --max-output-tokens 512")
        assert code == 0


def test_a_retiring_model_is_warned_of_and_prices_come_from_a_file(folder, command, tmp_path):
    assert (
        "warning: gpt-4-turbo-2024-04-09 was retired on 2026-10-23"
        in command("estimate --model gpt-4-turbo-2024-04-09")[1]
    )
    prices = tmp_path / "prices.json"
    prices.write_text(json.dumps({"models": {"new-model": {"input": "0.40", "output": "1.60"}}}))
    with FaultServer() as server:
        code, _ = command(f"run --base-url {server.url} --model new-model --prices {prices} --budget-usd 1")
        assert code == 0
        prices.unlink()
        # The prices were copied into the run, so that what was paid stays known.
        assert command("export")[0] == 0
        command(f"status --json {tmp_path / 's.json'}")
        assert read_json(tmp_path / "s.json")["paid_usd"] == pytest.approx(server.cost / 1e12)


def test_a_pilot_of_another_model_hides_no_answers(folder, command):
    with FaultServer() as server:
        assert command(f"run --base-url {server.url} --model first")[0] == 0
        assert command(f"pilot --base-url {server.url} --model second --pilot 3")[0] == 0
        assert "20 answers to 20 questions" in command("export")[1]
        assert "3 answers to 20 questions" in command("export --model second")[1]
        assert "which was not asked" in command("export --model third")[1]
        assert command(f"run --base-url {server.url} --model second")[0] == 0
        assert "20 answers to 20 questions" in command("export --model first")[1]


def test_batches_are_waited_for_cancelled_and_say_why_they_failed(folder, command):
    api = BatchApi(faulty("the model cannot be used in batches", "invalid_model"))
    with FaultServer(routes=api) as server:
        line = f"run --batch --base-url {server.url} --model gpt-4.1-mini --budget-usd 1"
        code, output = command(f"{line} --wait")
        assert "failed: 20 × batch failed: the model cannot be used in batches (line 2)" in output
        code, output = command(line)
        assert (code, api.created) == (2, 1)
        assert "the model cannot be used in batches" in output
        api.outcome = lambda lines, call: ("in_progress", None, None)
        assert command(f"{line} --again")[0] == 0
        code, output = command("batch cancel --wait")
        assert (code, "cancelled: 1" in output, "$0.000000 reserved" in output) == (0, True, True)
        api.outcome = BatchApi().outcome
        code, output = command(f"{line} --wait")
        assert (code, "'answers': 20" in output) == (0, True)
        code, output = command("status")
        assert "refused or not done, at no cost: 20 × batch cancelled" in output


def test_what_needs_no_data_loads_no_jax(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    code = (
        "import sys; from experiments import query_llm; query_llm.main(); heavy = ('jax', 'flax', 'scipy', 'openai')\n"
    )
    code += "print([name for name in heavy if name in sys.modules])"
    line = [sys.executable, "-c", code, "status", "--run", str(tmp_path)]
    out = subprocess.run(line, capture_output=True, text=True, check=True, cwd=paths.ROOT)
    assert out.stdout.splitlines()[-1] == "[]"
    assert out.stdout.startswith("answers: none")


def test_a_run_that_waits_for_answers_stops_without_an_error(monkeypatch, capsys):
    def stop(settings):
        raise reproduce.UnansweredError("no model was asked yet; run it")

    monkeypatch.setattr(reproduce, "run_pipeline", stop)
    monkeypatch.setattr("sys.argv", ["reproduce", "--data", "synthetic", "--backbone", "fpmc", "--out", "x"])
    with pytest.raises(SystemExit) as ended:
        reproduce.main()
    text = capsys.readouterr().err
    assert (ended.value.code, "error" in text) == (2, False)
    assert "stopped before the paid stage: no model was asked yet" in text
