"""Vectors of titles from a server, as a command, and a student that reads their file."""

import numpy as np
import pytest

import alkd_jax as alkd
from alkd_jax.data import item_vectors
from experiments import embed_items
from tests.helpers import command_calls
from tests.helpers.fault_server import FaultServer, error, http


def served(call):
    texts = call.body["input"]
    rows = [{"index": n, "embedding": [float(len(text)), float(sum(text.encode()))]} for n, text in enumerate(texts)]
    tokens = sum(map(len, texts))
    return [http({"data": rows, "usage": {"prompt_tokens": tokens, "total_tokens": tokens}})]


@pytest.fixture
def command(monkeypatch, capsys):
    """A function that calls the command on the built-in data and returns its exit status and output."""

    def call(*arguments):
        return command_calls.call(
            embed_items.main, ["--data", "synthetic", "--model", "any", *arguments], monkeypatch, capsys
        )

    return call


def test_the_file_has_a_vector_of_each_title_and_is_read_as_item_vectors(command, tmp_path):
    out = tmp_path / "new" / "v.npz"
    dataset = alkd.data.synthetic()
    with FaultServer(routes=served) as server:
        code, output = command("--base-url", server.url, "--out", out)
        assert code == 0, output
        assert f"{out}: {dataset.num_items:,} of {dataset.num_items:,} items, 2 numbers each" in output
    found = item_vectors.read_vectors(out, dataset.num_items, item_ids=dataset.item_ids)
    titles = dataset.titles[1:]
    expected = np.array([[len(title), sum(title.encode())] for title in titles], np.float32)
    np.testing.assert_allclose(found[1:], expected / np.linalg.norm(expected, axis=1, keepdims=True), rtol=1e-6)


def test_a_file_that_exists_stays_unless_it_is_to_be_overwritten(command, tmp_path):
    out = tmp_path / "v.npz"
    out.write_bytes(b"a user's own")
    with FaultServer(routes=served) as server:
        code, output = command("--base-url", server.url, "--out", out)
        assert code == 2
        assert "v.npz exists; expected a new file, or --overwrite" in output
        assert out.read_bytes() == b"a user's own"
        assert command("--base-url", server.url, "--out", out, "--overwrite")[0] == 0
    assert out.read_bytes() != b"a user's own"


def test_a_folder_that_is_a_file_is_named(command, tmp_path):
    (tmp_path / "file").write_text("")
    code, output = command("--base-url", "http://127.0.0.1:9/v1", "--out", tmp_path / "file" / "v.npz")
    assert code == 2
    assert output.count("error: ") == 1
    assert "file" in output


def test_an_estimate_sends_nothing_and_names_the_cost(command, tmp_path):
    out = tmp_path / "v.npz"
    code, output = command("--base-url", "https://example.org/v1", "--price-input", "0.02", "--out", out, "--estimate")
    assert code == 0, output
    assert "requests to send" in output
    assert "at most (as given)" in output
    code, output = command("--base-url", "https://example.org/v1", "--out", out, "--estimate")
    assert "price unknown" in output
    assert not out.exists()


def test_a_run_that_the_cap_ended_writes_no_file_and_goes_on(command, tmp_path):
    out = tmp_path / "v.npz"
    with FaultServer(routes=served) as server:
        options = ["--base-url", server.url, "--out", out, "--price-input", "1", "--texts-per-request", "8"]
        code, output = command(*options, "--budget-usd", "0.001")
        assert code == 2
        assert "titles have no vector yet (budget exhausted" in output
        assert not out.exists()
        code, output = command(*options, "--budget-usd", "1")
        assert code == 0, output
        assert out.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--out", "v.npy"], "the ending of --out is '.npy'; expected '.npz'"),
        (["--out", "v.npz", "--in-flight", "0"], "--in-flight is 0"),
        (["--out", "v.npz", "--dimensions", "0"], "--dimensions is 0"),
        (["--out", "v.npz"], "nothing is capped"),
    ],
)
def test_options_that_do_not_fit_are_refused(command, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    code, output = command("--base-url", "https://example.org/v1", *options)
    assert code == 2
    assert message in output


def test_a_server_that_refuses_is_quoted(command, tmp_path):
    with FaultServer(routes=lambda call: [error(404, "model_not_found", message="no such model")]) as server:
        code, output = command("--base-url", server.url, "--out", tmp_path / "v.npz")
        assert code == 2
        assert "no such model" in output
