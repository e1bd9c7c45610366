"""When a version may become champion: every check with its figures, in the order they are made."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from musicrec.errors import ConfigError
from musicrec.metrics.significance import Interval


@dataclass(frozen=True, slots=True)
class Policy:
    """What is asked of a challenger.

    Attributes:
        max_latency_ms: the median of single answers on this machine may be no higher.
        margin: what the challenger may lose for certain, as a share of the champion's NDCG@10:
            the 95 % interval of the difference must lie above that. At 0 it must be better for
            certain.

    Raises:
        ConfigError: a setting that makes no sense.
    """

    max_latency_ms: float = 100.0
    margin: float = 0.02

    def __post_init__(self) -> None:
        if not self.max_latency_ms > 0:
            raise ConfigError(f"policy.max_latency_ms={self.max_latency_ms} must be above 0")
        if not 0 <= self.margin < 1:
            raise ConfigError(f"policy.margin={self.margin} must be a share from 0 to below 1")


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: ``answers``, ``latency``, ``data`` or ``not_worse``.
        is_passed: whether it was as asked.
        said: the finding with its figures, for a person.
        may_be_forced: a person may pass over it.
    """

    name: str
    is_passed: bool
    said: str
    may_be_forced: bool = True


@dataclass(frozen=True, slots=True)
class Verdict:
    """All checks of a challenger; those after the first that cannot be forced were not made."""

    checks: tuple[Check, ...]

    @property
    def is_passed(self) -> bool:
        return all(check.is_passed for check in self.checks)

    @property
    def may_be_forced(self) -> bool:
        return all(check.is_passed or check.may_be_forced for check in self.checks)

    @property
    def why(self) -> str:
        """What spoke against it, or for it where nothing did."""
        telling = [check for check in self.checks if not check.is_passed] or self.checks
        return "; ".join(f"{check.name}: {check.said}" for check in telling)

    def as_dicts(self) -> list[dict[str, Any]]:
        return [asdict(check) for check in self.checks]


def verdict(checks: Iterable[Check]) -> Verdict:
    """Make the checks one after the other, as far as each makes sense."""
    made: list[Check] = []
    for check in checks:
        made.append(check)
        if not check.is_passed and not check.may_be_forced:
            break
    return Verdict(tuple(made))


def answers(failure: Exception | None) -> Check:
    """Whether the bundle opened and scored made-up listeners with finite numbers."""
    said = "opens, and answers with finite scores" if failure is None else str(failure)
    return Check("answers", failure is None, said, may_be_forced=False)


def latency(median_ms: float, policy: Policy) -> Check:
    said = f"a single answer takes {median_ms:.1f} ms (median), allowed are "
    return Check(
        "latency", median_ms <= policy.max_latency_ms, f"{said}{policy.max_latency_ms:g} ms"
    )


def data(challenger: str, asked: str, *, is_refit: bool) -> Check:
    """Whether the questions are those that the challenger has not seen the answers of.

    Args:
        challenger: fingerprint of the data it was trained on.
        asked: fingerprint of the data the questions are from.
        is_refit: it was trained on its own test targets in the end.
    """
    if is_refit:
        said = "trained on its own test targets (refit=true), so nothing fair can be asked of it"
        return Check("data", False, said)
    if challenger != asked:
        said = (
            f"trained on data {challenger[:12]}, of which no snapshot is left, and the dataset is "
            f"at {asked[:12]} now; train again on what is there"
        )
        return Check("data", False, said)
    return Check("data", True, f"both are asked about the same data {asked[:12]}")


def not_worse(difference: Interval | None, champion: float, targets: int, policy: Policy) -> Check:
    """Whether the challenger loses no more than the margin for certain.

    Args:
        difference: of NDCG@10, challenger less champion, target by target; None if there are too
            few targets to tell.
        champion: the champion's NDCG@10 on the same targets.
    """
    if difference is None:
        said = f"{targets} test target says nothing of a difference; two at least are needed"
        return Check("not_worse", False, said)
    floor = -policy.margin * champion
    said = (
        f"NDCG@10 {champion + difference.mean:.4f} against the champion's {champion:.4f} on "
        f"{targets:,} targets: {difference.mean:+.4f} [95 % {difference.low:+.4f} .. "
        f"{difference.high:+.4f}], must lie above {floor:+.4f}"
    )
    return Check("not_worse", difference.low > floor, said)


def no_champion_to_ask(failure: Exception) -> Check:
    """The champion cannot be judged beside the challenger."""
    return Check(
        "not_worse", False, f"the champion cannot be asked ({failure}); roll back, or force it"
    )
