"""``scripts/show_interest_graph.py``: an interest graph on screen, and as one HTML page."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from musicrec.cli import door, flags, outputs, report
from musicrec.database.engine import open_dataset
from musicrec.errors import ConfigError
from musicrec.graph.change import Change, Shift, change_between
from musicrec.graph.page import page_of, said_of
from musicrec.graph.reasons import name_of
from musicrec.graph.schema import InterestGraph, Node
from musicrec.graph.stored import StoredGraph, version_of, versions_of
from musicrec.graph.words import clean
from musicrec.registry.whole import whole_file

#: Tracks named beside an interest, and relations listed; the page shows all.
_TRACKS, _RELATIONS, _SHIFTS = 2, 10, 8
_BAR = 10


def show_graph(config: DictConfig) -> None:
    """Print a user's graph, or an earlier version of it, and write the page."""
    console = Console()
    if config.dataset is None or config.user is None:
        raise ConfigError("whose graph? say user=ID dataset=NAME")
    outputs.check_writable(config.output)
    with open_dataset(str(config.dataset)) as dataset:
        versions = versions_of(dataset, str(config.user))
    stored = _chosen(versions, config.version)
    since = _since(versions, stored, config.since)
    _print(console, stored, since)
    if config.output is not None:
        with whole_file(Path(config.output)) as file:
            file.write(page_of(stored, str(config.dataset), since=since).encode())
        report.say(console, f"the graph, drawn: {config.output} (open it in a browser)")


def _chosen(versions: list[StoredGraph], version: int | None) -> StoredGraph:
    return versions[-1] if version is None else version_of(versions, version)


def _since(
    versions: list[StoredGraph], stored: StoredGraph, since: int | None
) -> tuple[StoredGraph, Change] | None:
    """The version to compare with: the one named, or the one before where there is one."""
    if since is None:
        earlier = [other for other in versions if other.version < stored.version]
        before = earlier[-1] if earlier else None
    else:
        before = version_of(versions, since)
    return None if before is None else (before, change_between(before.graph, stored.graph))


def _print(console: Console, stored: StoredGraph, since: tuple[StoredGraph, Change] | None) -> None:
    graph = stored.graph
    console.print(_interests(stored))
    if graph.edges:
        console.print(_relations(graph))
    if since:
        before, change = since
        console.print(Text(f"since version {before.version} ({before.valid_from:%Y-%m-%d})"))
        console.print(Group(*_shifts("grew", change.grew), *_shifts("faded", change.faded)))
        if not (change.grew or change.faded):
            report.say(console, "  nothing grew or faded")


def _interests(stored: StoredGraph) -> Table:
    cost = (
        ""
        if stored.cost_usd is None or stored.provider == "local"
        else (f", ${stored.cost_usd:.4f}")
    )
    table = Table(
        title=Text(
            f"interests of user {_line(stored.user_id)}, version {stored.version}"
            f"{'' if stored.is_current else ' (superseded)'}, {stored.valid_from:%Y-%m-%d}"
        ),
        title_justify="left",
        caption=Text(f"by {stored.provider} {stored.model}{cost}"),
        caption_justify="left",
    )
    for title in ("kind", "interest", "weight", "term"):
        table.add_column(title, no_wrap=True, overflow="ellipsis", max_width=30)
    table.add_column("rests on")
    for node in stored.graph.nodes:
        bar = "█" * max(1, round(node.weight * _BAR))
        cells = (node.kind, _line(node.label), f"{node.weight:.2f} {bar}", node.term)
        # One line an interest: its tracks are cut where the screen ends.
        rests = Text(_rests(node), no_wrap=True, overflow="ellipsis")
        table.add_row(*(Text(cell) for cell in cells), rests)
    return table


def _line(text: str) -> str:
    """Data from elsewhere as one visible line: no control sequence reaches the terminal."""
    return clean(text, 200) or "–"


def _rests(node: Node) -> str:
    named = [
        f"{_line(name_of(track, with_artist=node.kind != 'artist'))} ({track.plays})"
        for track in node.evidence[:_TRACKS]
    ]
    more = len(node.evidence) - len(named)
    return ", ".join(named) + (f" and {more} more" if more else "")


def _relations(graph: InterestGraph) -> Table:
    strongest = sorted(
        graph.edges, key=lambda edge: (-edge.weight, edge.source, edge.target, edge.kind)
    )
    table = Table(title="how they go together", title_justify="left")
    for title in ("interest", "", "interest", "weight"):
        table.add_column(title, overflow="fold")
    for edge in strongest[:_RELATIONS]:
        source, target = graph.nodes[edge.source], graph.nodes[edge.target]
        kind = edge.kind.replace("_", " ")
        cells = (_line(source.label), kind, _line(target.label), f"{edge.weight:.2f}")
        table.add_row(*(Text(cell) for cell in cells))
    left = len(strongest) - _RELATIONS
    if left > 0:
        table.caption = f"and {left} weaker ones"
    return table


def _shifts(verb: str, shifts: tuple[Shift, ...]) -> list[Text]:
    lines = [
        Text(f"  {verb}: {_line(shift.label)} ({shift.kind}), {said_of(shift)}")
        for shift in shifts[:_SHIFTS]
    ]
    if len(shifts) > _SHIFTS:
        lines.append(Text(f"  {verb}: and {len(shifts) - _SHIFTS} more"))
    return lines


def main() -> None:
    door.run("show_graph", show_graph, flags.SHOW_GRAPH)
