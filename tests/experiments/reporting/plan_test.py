"""The plan of a table: what is done, what is left, how long it takes, and what fits into a number of hours."""

import json

import pytest

from experiments.reporting import plan, tables


def stages(folder, *, backbone, seconds, seeds=2):
    """Writes the folder of a run whose stages took these seconds."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(json.dumps({"dataset": "synthetic", "backbone": backbone}))
    (folder / "config.json").write_text(json.dumps({"seeds": seeds}))
    records = {name: {"digest": "0", "outputs": [], "seconds": number} for name, number in seconds.items()}
    (folder / "stages.json").write_text(json.dumps(records))


SECONDS = {"teacher": 100.0, "student": 20.0, "distill-Random": 30.0, "distill-ALKDRec": 40.0, "distill-FTD": 600.0}


@pytest.fixture
def args(tmp_path):
    return tables.TableArgs(
        data=("synthetic",), out=tmp_path, backbones=("fpmc", "stamp"), seeds=4, selection="own", trials=2
    )


def planned(args, methods="Random,ALKDRec,FTD"):
    return plan.make_plan(args.all_settings(methods), plan.known_costs(args.out.iterdir()), trials=args.trials)


def test_missing_trainings_take_what_they_took_elsewhere_in_proportion_to_the_seeds(args):
    stages(args.run_folder("synthetic", "fpmc"), backbone="fpmc", seconds=SECONDS)
    first, second = planned(args)
    assert set(first.done) == {"Student", "Teacher", "Random", "ALKDRec", "FTD"}
    assert first.missing == {}
    # Twice the seeds; FTD is tuned by two trials of one seed each.
    tuned = 2 * 600.0 + 2 * 600.0 * 2 / 4
    assert second.missing == {"Student": 40.0, "Teacher": 200.0, "Random": 60.0, "ALKDRec": 80.0, "FTD": tuned}
    table = plan.plan_table([first, second]).splitlines()
    assert table[2].split() == ["synthetic", "fpmc", "5", "of", "5", "0"]
    assert table[3].split() == ["synthetic", "stamp", "0", "of", "5", "36"]


def test_a_training_of_the_same_backbone_counts_before_others(args):
    costs = [plan.Cost("ML", "fpmc", 1, {"student": 10.0}), plan.Cost("Games", "fpmc", 1, {"student": 20.0})]
    costs += [plan.Cost("ML", "stamp", 1, {"student": 60.0, "teacher": 90.0})]
    assert plan.expected_seconds(costs, "ML", "fpmc", "student", 2) == 20.0
    assert plan.expected_seconds(costs, "Beauty", "fpmc", "student", 1) == 15.0
    assert plan.expected_seconds(costs, "Beauty", "attmix", "student", 1) == 30.0
    assert plan.expected_seconds(costs, "ML", "fpmc", "teacher", 1) == 90.0
    assert plan.expected_seconds(costs, "ML", "fpmc", "distill-RD", 1) is None


def test_unknown_times_are_said_to_be_unknown(args):
    stages(args.run_folder("synthetic", "fpmc"), backbone="fpmc", seconds={"teacher": 60.0})
    table = plan.plan_table(planned(args)).splitlines()
    assert table[2].split() == ["synthetic", "fpmc", "1", "of", "5", "4"]
    assert table[3].split() == ["synthetic", "stamp", "0", "of", "5", "2", "4"]


def test_the_shortest_methods_fit_first_and_none_without_a_student(args):
    stages(args.run_folder("synthetic", "fpmc"), backbone="fpmc", seconds=SECONDS)
    _, cell = planned(args)
    assert cell.methods_within(239.0) == ()
    assert cell.methods_within(240.0) == ()
    assert cell.methods_within(301.0) == ("Random",)
    assert cell.methods_within(380.0) == ("Random", "ALKDRec")
    assert cell.methods_within(10_000.0) == cell.settings.method_names


@pytest.fixture
def trained(monkeypatch, args):
    """Replaces training by a record of what would be trained."""
    calls = []

    def run_pipeline(settings):
        calls.append((settings.backbone, settings.method_names))
        seconds = {"teacher": 1.0, "student": 1.0} | {
            f"distill-{name}": SECONDS[f"distill-{name}"] for name in settings.method_names
        }
        stages(settings.out, backbone=settings.backbone, seconds=seconds, seeds=4)
        return {"settings": settings}

    monkeypatch.setattr(tables, "run_pipeline", run_pipeline)
    monkeypatch.setattr(tables, "tune_methods", lambda settings, trials: None)
    monkeypatch.setattr(tables, "write_table", lambda out, name, runs: runs)
    return calls


def test_hours_train_what_fits_and_the_same_command_goes_on(args, trained, capsys):
    stages(args.out / "other", backbone="fpmc", seconds=SECONDS, seeds=4)
    few = tables.dataclasses.replace(args, hours=0.1)
    runs = tables.make_table(few, "table1", "Random,ALKDRec,FTD")
    # 360 s: both runs have a student and the two short methods, and FTD does not fit.
    assert [run["settings"].method_names for run in runs] == [("Random", "ALKDRec")] * 2
    assert "left for the next time: synthetic, stamp: FTD" in capsys.readouterr().out
    trained.clear()
    runs = tables.make_table(tables.dataclasses.replace(args, hours=2.0), "table1", "Random,ALKDRec,FTD")
    assert [run["settings"].method_names for run in runs] == [
        few.all_settings("Random,ALKDRec,FTD")[0].method_names
    ] * 2
    assert "left for the next time" not in capsys.readouterr().out


def test_no_hours_train_nothing(args, trained):
    stages(args.out / "other", backbone="fpmc", seconds=SECONDS, seeds=4)
    assert tables.make_table(tables.dataclasses.replace(args, hours=0.0), "table1", "Random,ALKDRec,FTD") == []
    assert trained == []
    with pytest.raises(ValueError, match="--hours is -1"):
        tables.make_table(tables.dataclasses.replace(args, hours=-1.0), "table1", "Random")
