"""What a run says on screen: is the model any good, what would it play, and what next."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from musicrec.cli.console import spelt

if TYPE_CHECKING:  # torch takes seconds to import, and an import of listens needs none of it
    from musicrec.serving.recommender import Recommendations

_COLUMNS = {
    "NDCG@10": "ndcg_10",
    "HR@10": "hit_rate_10",
    "HR@20": "hit_rate_20",
    "repeat": "repeat/ndcg_10",
    "explore": "explore/ndcg_10",
    "coverage": "coverage_10",
}
#: Everything that moves a terminal, but for the end of a line.
_CONTROLS = dict.fromkeys([*range(10), *range(11, 32), *range(127, 160)], " ")

_ROWS = {
    "popularity": "popularity",
    "personal_top": "personal top",
    "markov": "Markov",
    "": "SASRec",
    "oracle": "oracle",
}


def results_table(metrics: Mapping[str, Any]) -> Table:
    """The model beside the baselines on the test targets."""
    protocol = metrics["protocol"]
    table = Table(
        title=f"test: {protocol['dataset']}, {protocol['users']:,} targets, "
        f"{protocol['catalogue']:,} tracks, split {protocol['split']}, seen {protocol['seen']}",
        title_justify="left",
        caption="repeat, explore: NDCG@10 of tracks heard before and not; coverage: share of the "
        "catalogue in any top 10",
        caption_justify="left",
    )
    table.add_column("", no_wrap=True)
    for title in _COLUMNS:
        table.add_column(title, justify="right", no_wrap=True)
    for key, name in _ROWS.items():
        prefix = f"test/{key}/" if key else "test/"
        if f"{prefix}ndcg_10" in metrics:
            values = (metrics.get(prefix + metric) for metric in _COLUMNS.values())
            cells = ["–" if value is None else f"{value:.4f}" for value in values]
            table.add_row(name, *cells, style="bold" if not key else None)
    return table


def verdict(metrics: Mapping[str, Any], best_baseline: str) -> str:
    """One sentence on whether the model is worth having."""
    against = f"the best baseline ({_ROWS[best_baseline]})"
    lead = metrics["test/lead_ndcg_10"]
    if "test/lead_ndcg_10_low" not in metrics:
        return (
            f"SASRec and {against} differ by {lead:+.4f} NDCG@10 on a single target, which says "
            "nothing; with one listener ask more: split=temporal split.target=all"
        )
    low, high = metrics["test/lead_ndcg_10_low"], metrics["test/lead_ndcg_10_high"]
    interval = f"{lead:+.4f} NDCG@10 [95 % {low:+.4f} .. {high:+.4f}]"
    if low > 0:
        sentence = f"SASRec beats {against}: {interval}."
    elif high < 0:
        sentence = (
            f"SASRec is worse than {against}: {interval}. Train longer or prefer the baseline."
        )
    else:
        sentence = f"SASRec and {against} cannot be told apart: {interval}."
    if metrics.get("test/gap_closed", 0) > 0:
        sentence += f" It closes {metrics['test/gap_closed']:.0%} of the gap to the oracle."
    return sentence


def recommendations_table(
    answer: Recommendations, title: str, reasons: Sequence[Sequence[str]] = ()
) -> Table:
    """Recommended tracks, best first; with the first reason of each, where there are reasons."""
    table = Table(title=Text(title), title_justify="left")
    for name in ("", "title", "artist", "track_id"):
        table.add_column(name)
    if reasons:
        table.add_column("why")
    for place, track in enumerate(answer, start=1):
        # Titles are data: Text, so that brackets in one are not read as markup.
        why = reasons[place - 1][:1] if reasons else ()
        cells = (track.title or "–", track.artist or "–", track.track_id, *why)
        table.add_row(str(place), *(Text(printable(cell)) for cell in cells))
    return table


def say_next(console: Console, folder: Path, dataset: str) -> None:
    """Where a training has written its model, and what to do with it."""
    model = os.path.relpath(folder / "model.pt")
    say(console, f"written: {model} and metrics.json beside it")
    recommend = spelt("recommend", f"bundle={model}", f"dataset={dataset}", "user=ID", "k=10")
    say(console, f"next: {recommend}   or: make tensorboard")


def say(console: Console, line: str) -> None:
    """A line of plain text, whatever brackets it holds."""
    console.print(Text(printable(line)), soft_wrap=True)


def printable(text: str) -> str:
    """``text`` without control characters: no title of a stranger's moves the terminal."""
    return text.translate(_CONTROLS)
