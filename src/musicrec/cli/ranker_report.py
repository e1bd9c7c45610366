"""What the training of a ranker says on screen."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from musicrec.cli import report
from musicrec.serving.candidates import SOURCE_BITS

if TYPE_CHECKING:
    from musicrec.registry.bundle import TrainedRanker

_COLUMNS = {
    "NDCG@10": "ndcg_10",
    "HR@10": "hit_rate_10",
    "HR@20": "hit_rate_20",
    "repeat": "repeat/ndcg_10",
    "explore": "explore/ndcg_10",
}
_PERIODS = {"val": "validation, out of fold", "test": "test"}
_ROWS = {
    "sasrec": "SASRec alone",
    "unranked": "service, no ranker",
    "pipeline": "service, ranker",
}


def say(console: Console, trained: TrainedRanker, path: Path) -> None:
    """The figures, whether it won, and where it is."""
    metrics = trained.metrics
    console.print(_table(metrics))
    for period, name in _PERIODS.items():
        brought = ", ".join(
            f"{source} {metrics[f'{period}/candidates/{source}']:.1%}" for source in SOURCE_BITS
        )
        report.say(
            console,
            f"{name}: {metrics[f'{period}/candidates/recall']:.1%} of the targets are candidates "
            f"({brought}), {metrics[f'{period}/candidates/banned']:.1%} are banned",
        )
    gains = {k.removeprefix("gain/"): v for k, v in metrics.items() if k.startswith("gain/")}
    shares = ", ".join(f"{group} {share:.0%}" for group, share in gains.items() if share >= 0.005)
    report.say(console, f"what the trees go by: {shares}")
    report.say(console, verdict(metrics, is_active=trained.is_active))
    report.say(console, f"written: {path} and metrics.json beside it")


def verdict(metrics: Mapping[str, Any], *, is_active: bool) -> str:
    """One sentence on whether it is used, and why."""
    leads = [f"{name} {_lead(metrics, period)}" for period, name in _PERIODS.items()]
    said = "; ".join(leads)
    if is_active:
        return f"The ranker wins on validation and is used by default: {said}."
    return (
        f"The ranker does not win on validation and is not used by default: {said}. The service "
        "takes it all the same with ranker=true."
    )


def _lead(metrics: Mapping[str, Any], period: str) -> str:
    prefix = f"{period}/pipeline/lead_ndcg_10"
    lead = f"{metrics[prefix]:+.4f} NDCG@10"
    if f"{prefix}_low" not in metrics:
        return lead
    return f"{lead} [95 % {metrics[f'{prefix}_low']:+.4f} .. {metrics[f'{prefix}_high']:+.4f}]"


def _table(metrics: Mapping[str, Any]) -> Table:
    protocol = metrics["protocol"]
    table = Table(
        title=f"{protocol['dataset']}: {protocol['val_targets']:,} validation and "
        f"{protocol['test_targets']:,} test targets, {protocol['catalogue']:,} tracks, split "
        f"{protocol['split']}, seen {protocol['seen']}",
        title_justify="left",
        caption="val: validation, out of fold; repeat, explore: NDCG@10 of tracks heard or not; "
        "the service bans what was skipped in the session or disliked",
        caption_justify="left",
    )
    for name in ("", " "):
        table.add_column(name, no_wrap=True)
    for name in _COLUMNS:
        table.add_column(name, justify="right", no_wrap=True)
    for period in _PERIODS:
        for row, said in _ROWS.items():
            values = (metrics.get(f"{period}/{row}/{key}") for key in _COLUMNS.values())
            cells = ["–" if value is None else f"{value:.4f}" for value in values]
            style = "bold" if row == "pipeline" else None
            table.add_row(period if row == "sasrec" else "", said, *cells, style=style)
    return table
