"""Run folders: what is reused, what is run again, and that nothing half-written stays."""

import pytest

from experiments.run_folder import RunFolder, read_json, write_json


@pytest.fixture
def folder(tmp_path):
    folder = RunFolder(tmp_path / "run", announce=lambda line: None)
    folder.open({"data": "world"})
    return folder


def writer(calls, text="x", name="a.txt"):
    def work(partial):
        calls.append(text)
        (partial / name).write_text(text)

    return work


def test_a_hop_is_run_once_for_the_same_inputs_and_again_for_others(folder):
    calls = []
    for budget in (500, 500, 600, 600):
        folder.hop("select", {"budget": budget}, ["a.txt"], writer(calls, str(budget)))
    assert calls == ["500", "600"]
    assert (folder.path / "a.txt").read_text() == "600"


def test_a_hop_is_run_again_when_its_output_is_gone(folder):
    calls = []
    folder.hop("select", {}, ["a.txt"], writer(calls))
    (folder.path / "a.txt").unlink()
    folder.hop("select", {}, ["a.txt"], writer(calls))
    assert len(calls) == 2


def test_a_hop_is_run_again_when_an_earlier_one_changed(folder):
    calls = []
    for dim in (10, 10, 12):
        folder.hop("train", {"dim": dim}, ["a.txt"], writer([]))
        folder.hop("evaluate", {}, ["b.txt"], writer(calls, name="b.txt"), after=["train"])
    assert len(calls) == 2


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_interrupted_hop_leaves_the_former_output_and_no_remains(folder, error):
    folder.hop("select", {"budget": 1}, ["a.txt"], writer([], "old"))

    def breaks(partial):
        (partial / "a.txt").write_text("half")
        raise error

    with pytest.raises(error):
        folder.hop("select", {"budget": 2}, ["a.txt"], breaks)
    assert (folder.path / "a.txt").read_text() == "old"
    assert sorted(p.name for p in folder.path.iterdir()) == ["a.txt", "hops.json", "run.json"]
    calls = []
    folder.hop("select", {"budget": 1}, ["a.txt"], writer(calls))
    assert calls == []


def test_a_folder_of_another_run_or_of_the_user_is_refused(folder, tmp_path):
    folder.open({"data": "world"})
    with pytest.raises(ValueError, match="data is 'world', asked 'ML'"):
        folder.open({"data": "ML"})
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("")
    with pytest.raises(ValueError, match="not a run's"):
        RunFolder(tmp_path / "mine", announce=lambda line: None).open({})
    with pytest.raises(ValueError, match="is a file"):
        RunFolder(tmp_path / "mine" / "thesis.tex", announce=lambda line: None).open({})


def test_json_round_trip_and_damage(tmp_path):
    write_json(tmp_path / "a.json", {"a": [1, 2.5, None]})
    assert read_json(tmp_path / "a.json") == {"a": [1, 2.5, None]}
    (tmp_path / "a.json").write_text('{\n"a": [1,\n')
    with pytest.raises(ValueError, match=r"a\.json:3: "):
        read_json(tmp_path / "a.json")
