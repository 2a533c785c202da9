"""Whether a run's settings can be carried out on its dataset, checked before anything is trained."""

import dataclasses
from collections.abc import Iterable

import jax.numpy as jnp
import numpy as np

import alkd_jax as alkd
from alkd_jax.data.readers import registry
from alkd_jax.errors import printable
from alkd_jax.llm.teachers import raw_rankings

from . import games, llm_settings, session_selection, teachers
from .console import print_line
from .methods import needed_selections
from .settings import Settings

SESSIONS_PER_QUESTION = 5
"""Training sessions per session that the teacher ranks, where no budget is set: the policies for all ratios of
the paper's Figure 3 have a support of more than a fifth of the sessions."""


def fit_to(settings: Settings, dataset: alkd.Dataset) -> Settings:
    """Returns the settings with a budget that fits the data, where none was set.

    Args:
        settings: of a run.
        dataset: of the run.
    """
    if settings.budget is not None:
        return settings
    most = len(dataset.train) // SESSIONS_PER_QUESTION
    if settings.rankings is not None:
        most = min(most, _num_listed(settings, dataset))
    return dataclasses.replace(settings, budget=max(1, min(settings.resolved_budget, most)))


def check(settings: Settings, dataset: alkd.Dataset) -> None:
    """Refuses settings that cannot be carried out on a dataset.

    Args:
        settings: of a run, with a budget.
        dataset: of the run.

    Raises:
        ValueError: there are fewer sessions or lists than the budget, a policy selects fewer, or the data have no
            titles to ask a language model about.
    """
    num, num_train = settings.resolved_budget, len(dataset.train)
    name = printable(dataset.name)
    if num > num_train:
        raise ValueError(f"--budget is {num}, but {name} has {num_train} training sessions; expected at most as many")
    if settings.resolved_teacher == "openai":
        llm_settings.check_titles(dataset)
    if settings.rankings is not None and (listed := _num_listed(settings, dataset)) < num:
        raise ValueError(
            f"--budget is {num}, but {settings.rankings} has usable lists for {listed} training sessions of {name}; "
            "expected at most as many"
        )
    needed = needed_selections(settings.method_names)
    if settings.resolved_selection == "own":
        _check_policies(settings, num_train, needed)
        return
    for selection, ids in session_selection.released_selections(settings, dataset).items():
        if selection in needed and len(ids) < num:
            raise ValueError(
                f"--budget is {num}, but the authors selected {len(ids)} sessions by {selection}; expected at most as "
                "many, or --selection own"
            )


def check_all(all_settings: Iterable[Settings]) -> None:
    """Checks the settings of several runs, each also on its dataset, before the first one is started.

    Raises:
        ValueError: one of them is invalid.
    """
    datasets: dict[str, alkd.Dataset] = {}
    for settings in all_settings:
        settings.check()
        if settings.data not in datasets:
            datasets[settings.data] = registry.read(settings.data)
        check(fit_to(settings, datasets[settings.data]), datasets[settings.data])


def announce(settings: Settings, dataset: alkd.Dataset) -> None:
    """Prints how many lists of a file are used, and a warning where a simulated teacher has no titles to rank by."""
    if settings.rankings is not None:
        _, report = teachers.load_recorded(settings, dataset)
        print_line(f"{settings.rankings}: {raw_rankings.in_words(report)}")
    if settings.resolved_teacher == "simulated" and not any(dataset.titles[1:]):
        print_line(
            f"warning: {printable(dataset.name)} has no titles, by which the simulated teacher ranks: its lists are "
            f"the recommender's own, some in random order; {llm_settings.HOW_TO_GIVE_TITLES}",
            style="yellow",
        )


def _num_listed(settings: Settings, dataset: alkd.Dataset) -> int:
    recorded, _ = teachers.load_recorded(settings, dataset)
    return int(np.isin(recorded.session_id, dataset.train.session_id).sum())


def _check_policies(settings: Settings, num_train: int, needed: tuple[str, ...]) -> None:
    """Raises ValueError where a policy selects fewer sessions than the budget, which only depends on their number."""
    rank, num = jnp.arange(1, num_train + 1, dtype=jnp.int32), settings.resolved_budget
    supports = {}
    if "ALKDRec" in needed:
        solution, _ = games.solve_game(settings, rank)
        supports["ALKDRec"] = int(solution.support_size)
        if solution.value < 0 and supports["ALKDRec"] < num:
            raise ValueError(
                f"--ratios is {settings.ratios}, for which the value of the game is {float(solution.value):.3g} and "
                f"its policy selects {supports['ALKDRec']} of {num} sessions; expected more effective answers, or "
                "fewer incorrect ones"
            )
    if "RAD-BC" in needed:
        supports["RAD-BC"] = int(games.solve_rad_bc(settings, rank).support_size)
    for name, support in supports.items():
        if support < num:
            raise ValueError(
                f"--budget is {num}, but with --ratios {' '.join(map(str, settings.ratios))} the policy of {name} "
                f"selects among {support} of the {num_train} training sessions; expected at most as many"
            )
