"""The model card: what it says, and texts of data that stay texts in it."""

import re

import yaml

from alkd_jax.serving import manifest, model_card
from alkd_jax.serving.model_card import Card


def config(dataset="ML"):
    sizes = {"num_items": 4000, "dim": 10, "length": 18, "list_length": 100}
    files = {"files": {manifest.WEIGHTS: {"bytes": 1234, "sha256": "0"}}, "left_out": {}, "versions": {}}
    return manifest.Config("fpmc", {}, **sizes, dtype="float32", dataset=dataset, fingerprint="abc", **files)


def test_a_card_says_what_is_known():
    metrics, language_model = {"recall@10": 0.123456}, {"model": "gpt-x-2024-04-09", "cost": "1.00 dollars"}
    text = model_card.as_markdown(config(), Card("ALKDRec, seed 2", "On all items.", metrics, language_model))
    for part in (
        "recommends the next item of a session: ALKDRec, seed 2.",
        "| items | 4,000 |",
        "| recall@10 | 0.1235 |",
        "| fingerprint | abc |",
        "| model | gpt-x-2024-04-09 |",
        'Recommender.load("FOLDER")',
        "Apache-2.0",
    ):
        assert part in text


def test_what_is_not_known_is_said():
    text = model_card.as_markdown(config(), Card())
    assert "It was not evaluated when it was exported." in text
    assert "No language model was asked." in text


def test_texts_of_data_are_neither_markup_nor_yaml():
    hostile = "a\n---\n# title |<img src=x onerror=alert(1)> [b](javascript:c) `d` \x1b[2J \u202e"
    card = Card(hostile, hostile, {hostile: 0.5}, {"model": hostile})
    text = model_card.as_markdown(config(hostile), card)
    _, header, body = text.split("---\n", 2)
    assert yaml.safe_load(header)["dataset"].startswith("a\\n---\\n# title")
    assert not re.search(r"(?<!\\)<img|(?<!\\)\]\(|\x1b|\u202e|^# title", body, re.M)
    assert body.count("\n# ") == 1
    assert all(line.count("|") - line.count("\\|") == 3 for line in body.splitlines() if line.startswith("| "))
