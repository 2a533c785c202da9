"""Batch recommendations: which sessions are answered, after which items, by which numbers, and in which file."""

import dataclasses
import json

import jax
import pytest

import alkd_jax as alkd
from experiments import recommend as command

TRAIN = [("1", "a", 10), ("1", "b", 20), ("2", "a", 11), ("2", "b", 21), ("2", "c", 31), ("3", "a", 12), ("3", "c", 22)]
TEST = [("8", "b", 40), ("8", "a", 50), ("2", "a", 60), ("2", "a", 70), ("2", "c", 80)]


def write_gru4rec(path, rows):
    path.write_text("SessionId\tItemId\tTime\n" + "".join(f"{s}\t{i}\t{t}\n" for s, i, t in rows))
    return path


@pytest.fixture
def source(tmp_path):
    return f"gru4rec:{write_gru4rec(tmp_path / 'train', TRAIN)}:{write_gru4rec(tmp_path / 'test', TEST)}"


def lists(args):
    command.recommend(args)
    lines = [json.loads(line) for line in args.out.read_text().splitlines()]
    assert all(list(line) == ["session", "position", "items", "scores"] for line in lines)
    return {
        (line["session"], line["position"]): dict(zip(line["items"], line["scores"], strict=True)) for line in lines
    }


def test_every_position_of_the_test_sessions_is_answered_by_raw_ids(tmp_path, source):
    options = '{"steps": 1, "weighting": "same", "pruning": 20}'
    args = command.Recommend(
        tmp_path / "out.jsonl", source, method="sr", options=options, positions="all", seen="keep", k=2
    )
    found = lists(args)
    # After an item come, as often as it is followed by them: a → b twice, a → c once, b → c once.
    after = {"a": {"b": 2.0, "c": 1.0}, "b": {"c": 1.0, "a": 0.0}, "c": {"a": 0.0, "b": 0.0}}
    # The training file has a session 2 as well.
    expected = {("8", 0): "b", ("8", 1): "a", ("2", 0): "a", ("2", 1): "a", ("2", 2): "c"}
    assert found == {place: after[last] for place, last in expected.items()}
    assert list(found["8", 1]) == ["b", "c"], "best first"


def test_sessions_of_one_item_count_in_training_and_are_answered(tmp_path):
    train = write_gru4rec(tmp_path / "train", [*TRAIN, ("4", "c", 13), ("5", "c", 14)])
    test = write_gru4rec(tmp_path / "test", [("7", "a", 40), ("8", "b", 50), ("8", "a", 60)])
    args = command.Recommend(
        tmp_path / "out.jsonl", f"gru4rec:{train}:{test}", method="popularity", positions="all", seen="keep", k=1
    )
    found = lists(args)
    # c occurs four times in training, twice of it alone; a thrice.
    assert found == {("7", 0): {"c": 4.0}, ("8", 0): {"c": 4.0}, ("8", 1): {"c": 4.0}}
    other = dataclasses.replace(args, out=tmp_path / "other.jsonl", sessions=f"gru4rec:{test}")
    assert lists(other) == found


def test_the_last_position_and_seen_items_are_as_asked(tmp_path, source):
    args = command.Recommend(tmp_path / "out.jsonl", source, method="popularity", k=5)
    assert {place: list(items) for place, items in lists(args).items()} == {("8", 1): ["c"], ("2", 2): ["b"]}
    with pytest.raises(ValueError, match=r"out.jsonl exists; expected a new file, or --overwrite"):
        command.recommend(args)


def test_new_sessions_of_any_length_are_answered_and_unknown_items_skipped(tmp_path, source, capsys):
    new = tmp_path / "new.csv"
    new.write_text("session,item,time\nx,a,5\ny,?,6\ny,b,7\nz,?,8\n")
    args = command.Recommend(tmp_path / "out.jsonl", source, method="markov", sessions=f"csv:{new}", k=1)
    assert lists(args) == {("x", 0): {"b": 2.0}, ("y", 1): {"c": 1.0}, ("z", 0): {"a": 0.0}}
    assert "2 of 4 items are not in the catalogue" in capsys.readouterr().out


def test_a_table_whose_columns_are_called_otherwise_is_described(tmp_path, source):
    new = tmp_path / "new.csv"
    new.write_text("visit,SKU,when\nx,a,23.05.2024 08:00\ny,b,23.05.2024 09:00\n")
    args = command.Recommend(tmp_path / "out.jsonl", source, method="markov", sessions=f"csv:{new}", k=1)
    with pytest.raises(ValueError, match="expected item or item_id"):
        command.recommend(args)
    args = dataclasses.replace(args, columns="session=visit,item=SKU,time=when")
    with pytest.raises(ValueError, match=r"23\.05\.2024 08:00.*--time-format names the form"):
        command.recommend(args)
    found = lists(dataclasses.replace(args, time_format="%d.%m.%Y %H:%M"))
    assert found == {("x", 0): {"b": 2.0}, ("y", 0): {"c": 1.0}}


def test_prepared_data_are_answered_from_their_test_sessions(tmp_path):
    dataset = alkd.data.synthetic(num_items=50, num_sessions=100)
    args = command.Recommend(tmp_path / "out.jsonl", data="synthetic", method="popularity", positions="all", k=3)
    found = lists(args)
    dataset = alkd.data.synthetic()
    assert len(found) == len(dataset.test_sequences.sequences.items)
    assert all(len(items) == 3 for items in found.values())


def test_a_shipped_student_answers_as_its_recommender_does(tmp_path, capsys):
    dataset = alkd.data.synthetic(num_items=30, num_sessions=60)
    model = alkd.models.create("fpmc", num_items=30, dim=4)
    params = alkd.models.init_params(jax.random.key(0), model)
    alkd.export.save(tmp_path / "student", model, params, dataset)
    student, ids = alkd.Recommender.load(tmp_path / "student"), dataset.item_ids
    new = tmp_path / "new.csv"
    new.write_text(f"session,item,time\nx,{ids[3]},5\nx,{ids[9]},6\ny,?,6\n")
    args = command.Recommend(
        tmp_path / "out.jsonl", model=tmp_path / "student", sessions=f"csv:{new}", positions="all", k=4
    )
    found = lists(args)
    for place, known in (("x", 0), [ids[3]]), (("x", 1), [ids[3], ids[9]]):
        assert found[place] == {one.item_id: pytest.approx(one.score) for one in student.recommend(known, k=4)}
    assert found["y", 0] == {}
    assert "3 lists for 2 sessions, 1 of them empty; 1 of 3 items" in capsys.readouterr().out
    of_data = command.Recommend(tmp_path / "more.jsonl", data="synthetic", model=tmp_path / "student", k=4)
    assert len(lists(of_data)) == len(alkd.data.synthetic().test)


def test_a_reader_of_ones_own_is_a_source(tmp_path):
    table = tmp_path / "log.csv"
    table.write_text("user,item,time\nu,a,1\nu,b,2\n")
    command.Recommend(tmp_path / "out.jsonl", f"alkd_jax.data.readers.tables:load_table:{table}", method="sr").check()


def test_options_that_do_not_go_together_are_refused(tmp_path, source):
    good = {"source": source, "method": "sr"}
    for change, message in (
        ({"method": None}, "--method is None and --model None; expected one of them"),
        ({"model": tmp_path}, "expected one of them"),
        ({"data": "synthetic"}, "--source and --data go not together"),
        ({"source": None}, "neither --source nor --data is given"),
        ({"source": "synthetic"}, "--source is 'synthetic', which is prepared; expected it as --data"),
        ({"columns": "item=x"}, "--columns and --time-format describe the file of --sessions"),
        ({"source": None, "data": "synthetic", "recipe": "s3rec"}, "--recipe is 's3rec' without --source"),
        ({"k": 0}, "--k is 0"),
        ({"positions": "first"}, "--positions is 'first'; expected"),
        ({"seen": "both"}, "--seen is 'both'; expected"),
        ({"options": "[1]"}, r"--options is '\[1\]'; expected a JSON object"),
        ({"options": "{"}, "expected a JSON object"),
        ({"method": None, "model": tmp_path, "options": '{"steps": 1}'}, "a shipped student has none"),
        ({"method": "best"}, "best"),
        ({"options": '{"stepz": 1}'}, "stepz"),
    ):
        with pytest.raises(ValueError, match=message):
            command.recommend(command.Recommend(tmp_path / "out.jsonl", **(good | change)))
    assert not (tmp_path / "out.jsonl").exists()


def test_the_file_is_whole_or_not_there(tmp_path, source, monkeypatch):
    def fails(*_):
        raise ValueError("no answer")

    monkeypatch.setattr(command.batch_answers, "ByScorer", lambda *_: fails)
    with pytest.raises(ValueError, match="no answer"):
        command.recommend(command.Recommend(tmp_path / "out.jsonl", source, method="popularity"))
    assert not [path for path in tmp_path.iterdir() if "out" in path.name]
