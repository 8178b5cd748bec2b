"""Forest plots of an ablation: one for each unit and direction, so that every plot has one axis."""

from __future__ import annotations

from functools import partial

from tokbench.leaderboard.figures import Figure, both_widths
from tokbench.leaderboard.forest import ForestGroup, ForestRow, forest_keys, forest_plot, signed
from tokbench.leaderboard.numbers import decimals_for, format_number, judge_of, slug
from tokbench.reproduction import Ablation, AblationMetric, Pooled, SeedDifference
from tokbench.results import Estimate

__all__ = ["AblationLine", "ablation_figures", "ablation_lines"]

_SIDES = {"higher": ("worse", "better"), "lower": ("better", "worse"), "none": None}
_WORDS = {"higher": "higher is better", "lower": "lower is better", "none": "neither direction is better"}


class AblationLine:
    """One metric as printed: numbers in display units with the digits that its intervals support."""

    def __init__(self, one: AblationMetric) -> None:
        self.one = one
        self.decimals = decimals_for([_estimate(one, one.pooled), *(_estimate(one, seed) for seed in one.seeds)])

    @property
    def judge(self) -> str | None:
        """The metric's judge or variant."""
        return judge_of(self.one.metric)

    def value(self, number: float | None) -> str:
        """A value."""
        return "not given" if number is None else format_number(number * self.one.scale, self.decimals)

    def change(self, number: float | None) -> str:
        """A difference, with its sign."""
        return "not given" if number is None else signed(number * self.one.scale, self.decimals)

    @property
    def interval(self) -> str:
        """The pooled interval."""
        ends = self.one.pooled.ci95
        return "none" if ends is None else f"{self.change(ends[0])} to {self.change(ends[1])}"

    def group(self) -> ForestGroup:
        """The rows of its forest plot."""
        paper, pooled = self.one.paper, self.one.pooled
        rows = [self._row(f"seed {seed.seed}", seed) for seed in self.one.seeds]
        reference = None if paper is None else paper.difference * self.one.scale
        label = "all seeds" if len(rows) > 1 else "in all"
        rows.append(self._row(label, pooled, reference=reference, verdict=self.one.verdict))
        arms = f"{self.one.changed} − {self.one.base}"
        return ForestGroup(f"{self.one.title}{f' [{self.judge}]' if self.judge else ''}: {arms}", tuple(rows))

    def _row(
        self, label: str, one: SeedDifference | Pooled, *, reference: float | None = None, verdict: str | None = None
    ) -> ForestRow:
        low, high = (None, None) if one.ci95 is None else (end * self.one.scale for end in one.ci95)
        pooled = isinstance(one, Pooled)
        return ForestRow(label, one.difference * self.one.scale, low, high, reference, verdict, summary=pooled)


def ablation_lines(ablation: Ablation) -> list[AblationLine]:
    """The metrics as printed, in the record's order."""
    return [AblationLine(one) for one in ablation.metrics]


def ablation_figures(ablation: Ablation) -> list[Figure]:
    """Differences of changed minus base arm, per seed and pooled, with the paper's value and the verdict."""
    kinds: dict[tuple[str, float, str], list[AblationLine]] = {}
    for line in ablation_lines(ablation):
        kinds.setdefault((line.one.unit, line.one.scale, line.one.direction), []).append(line)
    figures = []
    for number, ((unit, _, direction), lines) in enumerate(kinds.items()):
        groups = [line.group() for line in lines]
        names = ", ".join(dict.fromkeys(line.one.title for line in lines))
        title = f"Differences: {names}"
        draw = partial(
            forest_plot, groups, title=title, label=f"difference{f', {unit}' if unit else ''}",
            decimals=max(line.decimals for line in lines), sides=_SIDES[direction],
            description=f"Differences between arms for {names}, {_WORDS[direction]}, with 95 % intervals around zero.",
        )  # fmt: skip
        identifier = f"forest-{slug(ablation.name)}-{number}"
        wide, narrow = both_widths(draw, identifier)
        figures.append(
            Figure(
                id=identifier,
                title=title,
                caption="The changed arm minus the base arm, from the same seed and on the same items; "
                f"{_WORDS[direction]}. An interval that holds zero leaves the sign of the effect open, and no interval "
                "speaks for sizes of model or data that were not trained.",
                wide=wide,
                narrow=narrow,
                legend=forest_keys([row for group in groups for row in group.rows]),
                head=["Metric and seed", "Base", "Changed", "Difference", "95 % interval"],
                body=[cells for line in lines for cells in _cells(line)],
            )
        )
    return figures


def _cells(line: AblationLine) -> list[list[str]]:
    made = []
    labelled: list[tuple[str, SeedDifference | Pooled]] = [(f"seed {s.seed}", s) for s in line.one.seeds]
    for label, one in [*labelled, ("all seeds", line.one.pooled)]:
        ends = "none" if one.ci95 is None else f"{line.change(one.ci95[0])} to {line.change(one.ci95[1])}"
        name = f"{line.one.title}, {line.one.changed} − {line.one.base}, {label}"
        made.append([name, line.value(one.base), line.value(one.changed), line.change(one.difference), ends])
    return made


def _estimate(one: AblationMetric, difference: SeedDifference | Pooled) -> Estimate:
    """The difference as an estimate, for the rule that chooses digits."""
    return Estimate(
        metric=one.metric, value=difference.difference, unit=one.unit, scale=one.scale, direction=one.direction,
        ci95=difference.ci95, method="", n=0,
    )  # fmt: skip
