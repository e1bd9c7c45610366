"""What became of somebody's interests between two versions of their graph."""

from __future__ import annotations

from dataclasses import dataclass

from musicrec.graph.schema import InterestGraph, Kind, Node, Term
from musicrec.graph.words import key

#: A weight that differs by less is the same: a few plays more or less move it this far.
LEAST = 0.05


@dataclass(frozen=True, slots=True)
class Shift:
    """One interest in both versions.

    Attributes:
        label: as the later version spells it, or the earlier where it is gone.
        before, after: its weights; None where it was not there.
        term_before, term_after: likewise.
    """

    kind: Kind
    label: str
    before: float | None
    after: float | None
    term_before: Term | None
    term_after: Term | None

    @property
    def by(self) -> float:
        """How much it grew, negative where it faded; an absent interest weighs nothing."""
        return (self.after or 0.0) - (self.before or 0.0)


@dataclass(frozen=True, slots=True)
class Change:
    """Every interest of either version in one of four places; the greatest shifts first.

    Attributes:
        grew, faded: those that shifted by ``LEAST`` or more; new ones grew, gone ones faded.
        settled: those whose weight stayed, and whose term did not.
        stayed: the others, new and gone ones of next to no weight among them.
    """

    grew: tuple[Shift, ...]
    faded: tuple[Shift, ...]
    settled: tuple[Shift, ...]
    stayed: tuple[Shift, ...]


def change_between(before: InterestGraph, after: InterestGraph, *, least: float = LEAST) -> Change:
    """What grew and what faded; interests are one where kind and ``key(label)`` are."""
    earlier, later = _by_interest(before), _by_interest(after)
    shifts = [_shift(earlier.get(i), later.get(i)) for i in {**later, **earlier}]
    shifts.sort(key=lambda shift: (-abs(shift.by), shift.kind, shift.label))
    # 0.35 − 0.3 is a little less than 0.05.
    moved = [shift for shift in shifts if abs(shift.by) >= least - 1e-9]
    same = [shift for shift in shifts if abs(shift.by) < least - 1e-9]
    settled = [s for s in same if s.term_before and s.term_after and s.term_before != s.term_after]
    return Change(
        grew=tuple(shift for shift in moved if shift.by > 0),
        faded=tuple(shift for shift in moved if shift.by < 0),
        settled=tuple(settled),
        stayed=tuple(shift for shift in same if shift not in settled),
    )


def _by_interest(graph: InterestGraph) -> dict[tuple[Kind, str], Node]:
    """Nodes of one interest count once, by the heaviest; nodes stand by falling weight."""
    found: dict[tuple[Kind, str], Node] = {}
    for node in graph.nodes:
        interest = (node.kind, key(node.label))
        if interest not in found or node.weight > found[interest].weight:
            found[interest] = node
    return found


def _shift(before: Node | None, after: Node | None) -> Shift:
    named = after or before
    assert named is not None
    return Shift(
        kind=named.kind,
        label=named.label,
        before=before.weight if before else None,
        after=after.weight if after else None,
        term_before=before.term if before else None,
        term_after=after.term if after else None,
    )
