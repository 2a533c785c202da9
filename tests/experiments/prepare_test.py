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


def test_the_recipe_gives_the_options_that_are_not_given(tmp_path, capsys):
    path = tmp_path / "own.txt"
    path.write_text("".join(f"u{n} {' '.join(str((n + step) % 7) for step in range(3 + n % 4))}\n" for n in range(20)))
    manifest = prepare.run(prepare.Preparation(f"userseq:{path}", tmp_path / "out"))
    assert manifest["split"] | {"rule": "leave-one-out", "train": 15, "validation": 20, "test": 20} == manifest["split"]
    assert (manifest["sessions"], manifest["interactions"]) == (20, sum(3 + n % 4 for n in range(20)))
    assert manifest["report"]["recipe"]["recipe"] == "s3rec"
    printed = capsys.readouterr().out.replace("\n", " ")
    assert "warning: split leave-one-out: the source has no times" in printed
    assert "recipe s3rec: The last item of a session is for test" in printed
    changed = prepare.run(prepare.Preparation(f"userseq:{path}", tmp_path / "refit", refit=True))
    assert changed["report"]["recipe"]["recipe"] == "s3rec with other options"
    assert changed["split"]["train"] == 20


def test_windows_are_written_and_named(tmp_path, capsys):
    path = write_table(tmp_path / "raw")
    options = {"boundary": "user", "split": "windows:2", "fractions": (0.5, 0.2, 0.3)}
    manifest = prepare_table(path, tmp_path / "out", **options)
    assert [part["folder"] for part in manifest["windows"]] == ["window-1", "window-2"]
    printed = capsys.readouterr().out.replace("\n", " ")
    assert "plays.csv (window 2 of 2): from 2014-05-13" in printed
    assert "/window-1" in printed
    for split in ("windows:0", "windows:", "windows:x"):
        with pytest.raises(ValueError, match="expected windows:NUMBER"):
            prepare_table(path, tmp_path / "no", split=split)
    with pytest.raises(ValueError, match=r"gap_days is 1\.0, but split is 'block'; expected split 'time-events'"):
        prepare_table(path, tmp_path / "no", split="block", gap_days=1.0)
    with pytest.raises(ValueError, match="test_time is 'soon'; expected an ISO 8601 time"):
        prepare_table(path, tmp_path / "no", split="time-events", test_time="soon")
