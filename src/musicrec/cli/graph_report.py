"""What a run over listeners says on screen: how far, how fast, how dear, and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from musicrec.database.engine import Dataset
from musicrec.graph.budget import dollars
from musicrec.graph.estimate import Estimate
from musicrec.graph.provider import Provider
from musicrec.graph.tally import Tally
from musicrec.graph.writing import connection_to

#: Listeners without a graph who are named.
MAX_NAMED = 10

_WHAT = {
    "done": "a new graph",
    "unchanged": "unchanged since their graph",
    "empty": "no plays",
    "quarantined": "quarantined: no usable reply",
    "quarantined_before": "quarantined by an earlier run",
    "failed": "failed: the next run asks again",
    "elsewhere": "another run works on them",
    "batched": "in a batch at the provider",
    "untouched": "not reached",
}


class _Cost(ProgressColumn):
    """Dollars so far, and what all will cost if it goes on like this."""

    def render(self, task: Any) -> str:
        tally: Tally | None = task.fields["tally"]
        if tally is None or not tally.spent:
            return ""
        asked = tally.done + tally.quarantined + tally.failed
        left = max(0, tally.users - tally.seen)
        whole = tally.spent + tally.spent * left // asked if asked else tally.spent
        return f"${dollars(tally.spent)} of about ${dollars(whole)}"


class _Rate(ProgressColumn):
    def render(self, task: Any) -> str:
        return f"{task.completed / task.elapsed:,.1f} users/s" if task.elapsed else ""


@contextmanager
def bar(console: Console, provider: Provider) -> Iterator[Callable[[Tally], None]]:
    """A bar that is gone in the end."""
    columns = (BarColumn(), MofNCompleteColumn(), _Rate(), _Cost(), TimeRemainingColumn())
    with Progress(
        TextColumn(f"asking {provider.name}"), *columns, console=console, transient=True
    ) as bars:
        task = bars.add_task("", total=None, tally=None)

        def on_progress(tally: Tally) -> None:
            bars.update(task, completed=tally.seen, total=tally.users, tally=tally)

        yield on_progress


def table(tally: Tally, provider: Provider, title: str) -> Table:
    """How many listeners ended how, and what it took."""
    made = Table(title=title, title_justify="left")
    made.add_column("listeners", no_wrap=True)
    made.add_column(f"{tally.users:,}", justify="right", no_wrap=True)
    for name, what in _WHAT.items():
        if count := getattr(tally, name):
            is_bad = name in ("quarantined", "quarantined_before", "failed", "untouched")
            made.add_row(what, f"{count:,}", style="red" if is_bad else None)
    made.add_section()
    made.add_row("calls", f"{tally.calls:,}")
    for what, count in (
        ("of them to mend a reply", tally.repairs),
        ("of them repeated after a failure", tally.retries),
        ("stored replies read, not asked for again", tally.read_again),
    ):
        if count:
            made.add_row(what, f"{count:,}")
    made.add_row("cost", f"${dollars(tally.spent)}" if provider.price else "price not known")
    return made


def remarks(tally: Tally, dataset: Dataset, provider: Provider, dropped: int) -> Iterator[str]:
    """Lines for what a person should know besides."""
    if tally.lost:
        amount = f", at most ${dollars(tally.lost_nanodollars)}" if provider.price else ""
        yield (
            f"{tally.lost:,} calls were in flight when an earlier run was killed; they may have "
            f"been billed without a reply{amount}"
        )
    if tally.unknown:
        yield f"of the cost, ${dollars(tally.unknown)} is for calls that may not be billed"
    if dropped:
        yield f"{dropped:,} old raw replies are dropped (keep_replies_days)"
    named = 0
    for user_id, state, reason in _without(dataset, provider) if tally.without else ():
        yield f"user {user_id}: {state}: {reason}"
        named += 1
    if tally.without > named > 0:
        yield f"and {tally.without - named:,} more; their reasons stand in graph_tasks"
    if tally.stopped:
        yield f"stopped: {tally.stopped}"


def _without(dataset: Dataset, provider: Provider) -> list[tuple[str, str, str]]:
    with connection_to(dataset) as connection:
        return connection.execute(
            "SELECT user_id, state, reason FROM graph_tasks JOIN users USING (user_key)"
            " WHERE provider = %s AND model = %s AND state IN ('quarantined', 'failed')"
            " ORDER BY changed_at DESC, user_key LIMIT %s",
            (provider.name, provider.model, MAX_NAMED),
        ).fetchall()


def estimate_table(told: Estimate, title: str) -> Table:
    """Listeners, tokens and dollars of a dry run."""
    made = Table(title=title, title_justify="left")
    made.add_column("listeners", no_wrap=True)
    made.add_column(f"{told.users:,}", justify="right", no_wrap=True)
    made.add_row("would be asked for", f"{told.asked:,}")
    for name in ("unchanged", "quarantined_before", "empty"):
        if count := getattr(told, name):
            made.add_row(_WHAT[name], f"{count:,}")
    made.add_section()
    low, high = (tokens * told.asked for tokens in told.output_tokens)
    source = "as past replies" if told.is_measured else "a guess"
    made.add_row("input tokens, about", f"{told.input_tokens:,}")
    made.add_row(f"output tokens ({source})", f"{low:,} to {high:,}")
    if told.cost is None or told.most is None:
        cost = "nothing to ask" if not told.asked else "price not known"
        made.add_row("cost", cost)
    else:
        made.add_row("cost", f"${dollars(told.cost[0])} to ${dollars(told.cost[1])}")
        made.add_row("cost at the very most, without repairs", f"${dollars(told.most)}")
    return made
