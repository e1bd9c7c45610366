"""What the two stages reach beside SASRec alone, question by question; no I/O in here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from musicrec.metrics.ranking import NEVER, means, ndcg
from musicrec.metrics.significance import mean_interval
from musicrec.serving.candidates import SOURCE_BITS
from musicrec.serving.replay import Question


class Outcome(NamedTuple):
    """What became of one question.

    Attributes:
        sasrec, unranked: the target's ranks without a ranker, as in ``replay.Ranks``.
        pipeline: and by the two stages; behind all candidates where it is none.
        sources: the sum of the bits of what brought the target in; 0 where nothing did.
    """

    sasrec: int
    unranked: int
    pipeline: int
    sources: int
    is_repeat: bool


def outcome(question: Question, scores: NDArray[np.floating]) -> Outcome:
    """Of a question and what its candidates are ordered by."""
    sources = question.candidates.sources[question.place] if question.place >= 0 else 0
    ranks = question.ranks
    return Outcome(
        ranks.sasrec, ranks.unranked, question.rank(scores), int(sources), question.is_repeat
    )


def metrics_of(outcomes: Sequence[Outcome]) -> dict[str, float]:
    """Every figure of some questions.

    ``sasrec/…`` (alone), ``unranked/…`` (the service without a ranker) and ``pipeline/…`` (with
    it): as ``metrics.ranking`` names them. ``pipeline/lead_ndcg_10`` with ``_low`` and ``_high``:
    with the ranker minus without, target by target, with its 95 % interval (none of a single
    question). ``candidates/recall``: share of the targets that are candidates at all;
    ``candidates/banned``: that the service keeps from being recommended; ``candidates/SOURCE``:
    that this source brought in; ``candidates/only_SOURCE``: and no other did.
    """
    repeats = torch.tensor([each.is_repeat for each in outcomes])
    ranks = {
        "sasrec": torch.tensor([each.sasrec for each in outcomes]),
        "unranked": torch.tensor([each.unranked for each in outcomes]),
        "pipeline": torch.tensor([each.pipeline for each in outcomes]),
    }
    found = {
        f"{name}/{key}": value
        for name, of in ranks.items()
        for key, value in means(of, repeats).items()
        if key != "repeat_share"
    }
    lead = ndcg(ranks["pipeline"], 10).double() - ndcg(ranks["unranked"], 10).double()
    found["pipeline/lead_ndcg_10"] = lead.mean().item()
    if (interval := mean_interval(lead)) is not None:
        found |= {
            "pipeline/lead_ndcg_10_low": interval.low,
            "pipeline/lead_ndcg_10_high": interval.high,
        }
    found["candidates/banned"] = (ranks["unranked"] == NEVER).double().mean().item()
    sources = np.array([each.sources for each in outcomes])
    found["candidates/recall"] = float((sources > 0).mean())
    for source, bit in SOURCE_BITS.items():
        found[f"candidates/{source}"] = float(((sources & bit) > 0).mean())
        found[f"candidates/only_{source}"] = float((sources == bit).mean())
    return found


def named(metrics: dict[str, float], period: str) -> dict[str, float]:
    """With the period before each name."""
    return {f"{period}/{key}": value for key, value in metrics.items()}
