"""Tables in the terminal: metrics that share a title are told apart, and reasons are whole sentences below."""

from __future__ import annotations

import io

from leaderboard import fakes
from rich.console import Console

from tokbench.report import format_estimate, print_results
from tokbench.results import Estimate, Result

CARDS = {fake.name: fakes.tokenizer_card(fake) for fake in fakes.CROWD}


def leakage(which: str, value: float, ci95: tuple[float, float] | None) -> Estimate:
    return Estimate(
        metric=f"eer_leakage[content:{which}]",
        title="Speaker EER of the content",
        value=value,
        unit="%",
        scale=100,
        direction="higher",
        ci95=ci95,
        method="bootstrap",
        n=10,
        headline=True,
    )


def result(name: str, estimates: list[Estimate], reason: str | None = None) -> Result:
    return Result(
        status="not_applicable" if reason else "complete",
        reason=reason,
        tokenizer=CARDS[name],
        task=fakes.task_card(headline=("eer_leakage",)),
        dataset=fakes.dataset(),
        estimates=estimates,
        coverage=None,
        manifest=fakes.manifest(),
    )


def test_metrics_of_one_title_are_told_apart_and_a_reason_stands_below() -> None:
    reason = "its tokens are samples of the waveform [16-bit]; this task reads frames"
    both = [leakage("histogram", 0.415, (0.36, 0.46)), leakage("pooled", 0.438, (0.39, 0.48))]
    screen = Console(file=io.StringIO(), width=120)
    print_results([result("kanade-25hz", both), result("identity", [], reason)], screen)
    shown = screen.file.getvalue()  # type: ignore[attr-defined]
    words = " ".join(shown.replace("┃", " ").split())
    assert "content:histogram" in words
    assert "content:pooled" in words
    assert f"identity: not applicable: {reason}\n" in shown
    row = next(line for line in shown.splitlines() if "identity" in line and "n/a" in line)
    assert row.count("n/a") == 2


def test_a_number_without_width_has_one_decimal() -> None:
    assert format_estimate(leakage("pooled", 1.0, (1.0, 1.0))) == "100.0 ± 0.0"
    assert format_estimate(leakage("pooled", 0.415, (0.36, 0.46))) == "41.5 ± 5.0"
