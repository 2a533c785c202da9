"""Trains one backbone on one dataset, without the rest of the pipeline, and evaluates it.

    python -m experiments.train --source userseq:Beauty.txt --recipe s3rec --backbone esasrec --out runs/beauty
    python -m experiments.train --source prepared:data/mine --backbone sasrec --loss softmax --seeds 3 --out runs/mine
    python -m experiments.recommend --model runs/beauty --sessions csv:new.csv --out lists.jsonl

The defaults of a backbone are those of its publication (experiments/pipeline/backbone_defaults.py). FOLDER/metrics.json
holds the metrics of the test sessions, and FOLDER/student the model of the best seed, which `recommend`, `export` and
`serve` take as `--model FOLDER`; a backbone of your own has none. The same command continues an interrupted run.

With `--refit` validation chooses the number of steps of every seed, and training starts again for as many steps on
training and validation items together. The recipe decides which test items are ranked among which, `--seen` and
`--targets-ranked` decide otherwise.
"""

from typing import Any

from .pipeline import distributed
from .pipeline.command_line import parse
from .pipeline.console import cli_errors, console, print_line
from .pipeline.shipped import STUDENT
from .pipeline.single_run import SingleRun, take_part
from .pipeline.train_options import Train
from .reporting import single_results


def train(args: Train) -> dict[str, Any]:
    """Trains, evaluates and exports a model.

    Returns:
        The content of `metrics.json`.
    """
    args.check()
    args = args.resolved()
    run = SingleRun.open(args)
    run.train_stage()
    run.refit_stage()
    run.ranks_stage()
    run.student_stage()
    results = single_results.collect(run)
    single_results.store(run, results)
    console.print(single_results.table(results))
    shipped = f"; the model of the best seed is in {args.out}/{STUDENT}" if (args.out / STUDENT).is_dir() else ""
    print_line(f"{args.out}/metrics.json{shipped}")
    return results


def main() -> None:
    """Entry point."""
    with cli_errors():
        distributed.run(parse(Train, "train", __doc__), train, take_part)


if __name__ == "__main__":
    main()
