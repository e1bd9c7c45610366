"""What a run has done so far, and how it ended."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Tally:
    """Counts of one run, changed as it goes on.

    Every listener counts once among ``done`` to ``untouched``.

    Attributes:
        users: listeners in all; the others add up to it when the run is over.
        done: with a new graph.
        unchanged: with a graph of the very summary, prompt and model: not asked for.
        quarantined: whom to ask for again is in vain; ``quarantined_before``: by an earlier run.
        failed: whom the next run asks for again.
        empty: without a play.
        elsewhere: whom another run works on; ``batched``: who wait for a batch.
        untouched: not reached, because the run stopped.
        calls: made by this run; ``repairs`` and ``retries`` are among them.
        read_again: replies of a killed run that were stored and not asked for again.
        lost: calls that were in flight when their run was killed, and may be billed twice;
            ``lost_nanodollars``: at most so much.
        spent, unknown: see ``Budget``.
        under_way: reserved for batches that have not ended; ``collected``: the cost of those that
            earlier runs handed over and this one fetched, which is not among ``spent``.
        stopped: why the run ended early; None where it did not.
        bug: the first error that nobody foresaw; its listener counts as failed.
    """

    users: int = 0
    done: int = 0
    unchanged: int = 0
    quarantined: int = 0
    quarantined_before: int = 0
    failed: int = 0
    empty: int = 0
    elsewhere: int = 0
    batched: int = 0
    calls: int = 0
    repairs: int = 0
    retries: int = 0
    read_again: int = 0
    lost: int = 0
    lost_nanodollars: int = 0
    spent: int = 0
    unknown: int = 0
    under_way: int = 0
    collected: int = 0
    stopped: str | None = None
    bug: BaseException | None = field(default=None, repr=False)

    @property
    def seen(self) -> int:
        """Listeners of whom is known what became of them."""
        asked = self.done + self.quarantined + self.failed + self.batched
        return asked + self.unchanged + self.quarantined_before + self.empty + self.elsewhere

    @property
    def untouched(self) -> int:
        """Listeners that the run did not come to."""
        return max(0, self.users - self.seen)

    @property
    def without(self) -> int:
        """Listeners whom this run leaves without an up-to-date graph, though they have plays."""
        return self.quarantined + self.quarantined_before + self.failed + self.untouched
