"""The command that prepares data: names in paths and titles act as nothing, and a refusal comes before any file."""

import json

import pytest

from experiments import prepare


def write_table(folder, *, item="i"):
    folder.mkdir(parents=True)
    rows = [f"u{n},{item}{n % 4},{1_400_000_000 + 60 * n}" for n in range(40) for _ in range(2)]
    path = folder / "plays.csv"
    path.write_text("\n".join(["user,item,time", *rows, "u,i", ""]))
    return path


def prepare_table(path, out, **options):
    return prepare.run(prepare.Preparation(f"table:{path}", out, min_length=2, duplicates="keep", **options))


@pytest.mark.parametrize("name", ["[/y]", "[red]", "\x1b[31m", "two\nlines"])
def test_a_path_is_no_markup_and_no_control_sequence(tmp_path, capsys, name):
    manifest = prepare_table(write_table(tmp_path / name), tmp_path / f"out{name}")
    assert manifest["sessions"] == 40
    printed = capsys.readouterr().out
    assert printed.replace("\n", "").isprintable()
    assert repr(name)[1:-1] in printed
    assert "lines/" not in [line[:6] for line in printed.splitlines()]


def test_what_recbole_cannot_hold_is_refused_before_anything_is_written(tmp_path):
    path = write_table(tmp_path / "raw", item="i x")
    with pytest.raises(ValueError, match=r"item id is 'i x0'; expected an id .* has no tab, .*, blank"):
        prepare_table(path, tmp_path / "out", recbole=tmp_path / "recbole")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["raw"]
    manifest = prepare_table(path, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["items"] == manifest["items"] == 4
