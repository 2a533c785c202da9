"""The options of the commands that make figures: those of a run, and the points of the figure."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from ..pipeline.settings import Settings

Points: TypeAlias = Mapping[str, Mapping[str, Any]]
"""Label on the axis → the settings of this point."""

RATIOS = ((1, 5, 4), (1, 4, 5), (1, 6, 3), (1, 7, 2), (2, 5, 3), (3, 5, 2), (4, 5, 1))
"""Ratios of games that can be won; with more incorrect answers the best policy selects one session, the easiest."""


@dataclasses.dataclass(frozen=True)
class WidthFigure(Settings):
    """The options of fig2_width.

    Attributes:
        widths: of the student, one for each point; they take the place of --student-dim.
    """

    widths: tuple[int, ...] = (10, 20, 40, 60, 80, 100)

    @property
    def points(self) -> Points:
        """The points of the figure."""
        return {str(width): {"student_dim": width} for width in self.widths}


@dataclasses.dataclass(frozen=True)
class CorrectionFigure(Settings):
    """The options of fig2_correction.

    Attributes:
        corrections: shares of corrected lists, one for each point; they take the place of --correction.
    """

    corrections: tuple[float, ...] = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)

    @property
    def points(self) -> Points:
        """The points of the figure."""
        return {f"{100 * share:g}%": {"correction": share} for share in self.corrections}


@dataclasses.dataclass(frozen=True)
class RatioFigure(Settings):
    """The options of fig3_ratios.

    Attributes:
        ratios: effective:similar:incorrect answers that the game assumes, one for each point, such as 1:5:4 2:5:3.
    """

    ratios: tuple[str, ...] = tuple(":".join(map(str, ratios)) for ratios in RATIOS)  # type: ignore[assignment]

    @property
    def points(self) -> Points:
        """The points of the figure.

        Raises:
            ValueError: a text is not three whole numbers.
        """
        points = {}
        for text in self.ratios:
            parts = str(text).split(":")
            if len(parts) != 3 or not all(part.isascii() and part.isdigit() for part in parts):
                raise ValueError(f"--ratios has {text!r}; expected three whole numbers such as 1:5:4 for each point")
            points[str(text)] = {"ratios": tuple(map(int, parts))}
        return points


@dataclasses.dataclass(frozen=True)
class BudgetFigure(Settings):
    """The options of fig4_budget.

    Attributes:
        budgets: numbers of sessions that the teacher ranks, one for each point; they take the place of --budget.
    """

    budgets: tuple[int, ...] = (50, 100, 250, 500, 750, 1000, 2000)

    @property
    def points(self) -> Points:
        """The points of the figure."""
        return {str(budget): {"budget": budget} for budget in self.budgets}


FigureOptions: TypeAlias = WidthFigure | CorrectionFigure | RatioFigure | BudgetFigure


def shared_settings(args: Settings, fixed: Mapping[str, Any]) -> Settings:
    """Returns the settings of a run without the options that a command has beside them.

    Args:
        args: the options of the command.
        fixed: settings that the command sets.
    """
    options = {field.name: getattr(args, field.name) for field in dataclasses.fields(Settings)}
    if isinstance(args, RatioFigure):
        del options["ratios"]
    return Settings(**options | dict(fixed))


def options_from(kind: Callable[..., FigureOptions], settings: Settings) -> FigureOptions:
    """Returns the options of a figure with the settings of a run and the figure's own points."""
    options = {field.name: getattr(settings, field.name) for field in dataclasses.fields(Settings)}
    if kind is RatioFigure:
        del options["ratios"]
    return kind(**options)
