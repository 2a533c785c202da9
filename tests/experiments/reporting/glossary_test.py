"""Every word that a page explains has a definition, and every column that has a word finds it."""

import importlib.resources
import re

from experiments.reporting import comparisons, glossary, results


def test_every_word_of_the_templates_is_defined():
    folder = importlib.resources.files("experiments.reporting") / "templates"
    text = (folder / "report.html.jinja").read_text()
    used = re.findall(r'parts\.term\(terms, "(\w+)"', text)
    assert used
    assert not set(used) - glossary.TERMS.keys()


def test_columns_find_their_words():
    keys = {column: glossary.key_of(column) for column in (*results.COLUMNS, "tied targets", "method")}
    assert keys == {
        "recall@5": "recall",
        "ndcg@5": "ndcg",
        "recall@10": "recall",
        "ndcg@10": "ndcg",
        "mrr": "mrr",
        "tied targets": "tied",
        "method": "",
    }
    assert len(comparisons.FULL_HEADINGS) == 11
