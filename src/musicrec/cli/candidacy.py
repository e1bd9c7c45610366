"""Whether a version may become champion: the checks of ``registry.policy``, made."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from musicrec.cli import report
from musicrec.cli.listens import streaming_bar
from musicrec.database.engine import open_dataset
from musicrec.database.home import home
from musicrec.errors import BundleError
from musicrec.interactions.snapshot import Snapshot
from musicrec.registry import policy as policies
from musicrec.registry.bundle import Bundle
from musicrec.registry.card import card
from musicrec.registry.policy import Check, Policy, Verdict
from musicrec.registry.versions import Model, Version
from musicrec.serving.latency import median_latency_ms
from musicrec.serving.probe import probe
from musicrec.serving.ranker import ranker_of
from musicrec.sources import stream
from musicrec.sources.snapshots import with_fingerprint
from musicrec.training.paired import Examination, Paired, paired


def judged(
    challenger: Version, champion: Version | None, policy: Policy, console: Console
) -> Verdict:
    """Look at a challenger as the policy asks.

    Without a champion it need only answer, and in time.
    """
    return policies.verdict(_checks(challenger, champion, policy, console))


def _checks(
    challenger: Version, champion: Version | None, policy: Policy, console: Console
) -> Iterator[Check]:
    try:
        bundle = challenger.open()
        probe(bundle, ranker_of(bundle))
    except BundleError as error:
        yield policies.answers(error)
        return
    yield policies.answers(None)
    yield policies.latency(median_latency_ms(bundle), policy)
    if champion is None:
        return
    snapshot = data_of(challenger, console)
    is_refit = bool(bundle.metrics["protocol"]["refit"])
    data = policies.data(challenger.data_fingerprint, snapshot.facts.fingerprint, is_refit=is_refit)
    yield data
    if data.is_passed:
        yield _compared(bundle, champion, snapshot, policy)


def _compared(bundle: Bundle, champion: Version, snapshot: Snapshot, policy: Policy) -> Check:
    try:
        other = champion.open()
    except BundleError as error:
        return policies.no_champion_to_ask(error)
    examination = Examination(snapshot, bundle.metrics["protocol"])
    ndcg = paired(examination.judge(bundle), examination.judge(other))[0]
    return policies.not_worse(ndcg.difference, ndcg.second, examination.num_targets, policy)


def champion_to_beat(model: Model) -> Version | None:
    """The champion, even one that is gone from the disk: that is for a check to say."""
    number = model.linked("champion")
    if number is None or number in model.numbers():
        return model.aliased("champion")
    return Version(model.name, number, model.folder / "versions" / str(number), {})


def data_of(version: Version, console: Console) -> Snapshot:
    """The data that a version was trained on; where they are gone, the dataset as it is now."""
    snapshots = home() / "snapshots"
    kept = with_fingerprint(snapshots, version.dataset, version.data_fingerprint)
    if kept is not None:
        return kept
    with open_dataset(version.dataset) as dataset, streaming_bar(console) as on_progress:
        return stream.snapshot(dataset, snapshots, on_progress)


def say(verdict: Verdict, console: Console) -> None:
    """A line for each check."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for check in verdict.checks:
        state = "passed" if check.is_passed else "failed"
        table.add_row(state, check.name, Text(report.printable(check.said)))
    console.print(table)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two versions on the same targets.

    Attributes:
        rows: what sets them apart.
        parts: name -> NDCG@10 on a part of the targets, of each.
        unknown: targets whose track each does not know.
    """

    first: Version
    second: Version
    num_targets: int
    data_fingerprint: str
    rows: list[Paired]
    parts: dict[str, tuple[float | None, float | None]]
    unknown: tuple[int, int]

    def table(self) -> Table:
        """As people read it."""
        table = Table(
            title=f"{self.first.spelt} against {self.second.spelt}: {self.num_targets:,} test "
            f"targets of {self.first.dataset} {self.data_fingerprint[:8]}",
            title_justify="left",
            caption=f"difference with its 95 % interval, target by target; tracks unknown to "
            f"version {self.first.number}: {self.unknown[0]:,} targets, to version "
            f"{self.second.number}: {self.unknown[1]:,}",
            caption_justify="left",
        )
        table.add_column("", no_wrap=True)
        for title in (str(self.first.number), str(self.second.number), "difference"):
            table.add_column(title, justify="right", no_wrap=True)
        for row in self.rows:
            said = "–"
            if row.difference is not None:
                mean, low, high = row.difference
                said = f"{mean:+.4f} [{low:+.4f} .. {high:+.4f}]"
            table.add_row(row.metric, f"{row.first:.4f}", f"{row.second:.4f}", Text(said))
        for name, values in self.parts.items():
            cells = ["–" if value is None else f"{value:.4f}" for value in values]
            known = [value for value in values if value is not None]
            table.add_row(name, *cells, f"{known[0] - known[1]:+.4f}" if len(known) == 2 else "–")
        return table

    def as_dict(self) -> dict[str, Any]:
        return {
            "versions": [self.first.number, self.second.number],
            "name": self.first.name,
            "targets": self.num_targets,
            "data_fingerprint": self.data_fingerprint,
            "unknown_targets": list(self.unknown),
            "metrics": [
                row._asdict() | {"difference": row.difference and row.difference._asdict()}
                for row in self.rows
            ],
            "parts": {name: list(values) for name, values in self.parts.items()},
        }


def comparison(first: Version, second: Version, console: Console) -> Comparison:
    """Ask two versions for the first one's test targets."""
    bundles = first.open(), second.open()
    snapshot = data_of(first, console)
    examination = Examination(snapshot, bundles[0].metrics["protocol"])
    judgements = tuple(examination.judge(bundle) for bundle in bundles)
    parts = {
        title: (judgements[0].values.get(key), judgements[1].values.get(key))
        for title, key in (
            ("NDCG@10, repeat", "repeat/ndcg_10"),
            ("NDCG@10, explore", "explore/ndcg_10"),
            ("coverage@10", "coverage_10"),
        )
    }
    unknown = examination.num_unknown(bundles[0]), examination.num_unknown(bundles[1])
    return Comparison(
        first,
        second,
        examination.num_targets,
        snapshot.facts.fingerprint,
        paired(*judgements),
        parts,
        unknown,
    )


def card_of(version: Version, console: Console) -> tuple[str, bool]:
    """The card of a version, and whether it tells of parts of its test targets.

    They are looked at in the data it was trained on; it does not where those are gone.
    """
    bundle, snapshot = version.open(), data_of(version, console)
    if snapshot.facts.fingerprint != version.data_fingerprint:
        return card(version, bundle), False
    examination = Examination(snapshot, bundle.metrics["protocol"])
    return card(version, bundle, examination.slices(examination.judge(bundle))), True
