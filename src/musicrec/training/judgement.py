"""The model beside the recommenders it has to beat, all by one protocol."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from musicrec.errors import DataError
from musicrec.interactions.sequence import Sequences, spans, transitions
from musicrec.interactions.split import Targets
from musicrec.metrics.ranking import means, ndcg
from musicrec.metrics.significance import mean_interval
from musicrec.models.baselines import Baseline, Markov, PersonalTop, Popularity
from musicrec.training.evaluation import Judgement, QuestionDataset, Questions, Seen, judge, repeats
from musicrec.training.module import NextItemModule

MICROSECONDS_PER_DAY = 86_400_000_000

BASELINES = ("popularity", "personal_top", "markov")


def baselines(
    sequences: Sequences, targets: Targets, popularity_days: float
) -> dict[str, Baseline]:
    """Popularity of the last days, personal top and first-order Markov, by name.

    They count everything the questions may know: at test that includes the validation period,
    which the model has not trained on but may see in a history. That favours the baselines.

    Args:
        popularity_days: how far back popularity reaches from the latest known interaction; an
            untimed dataset counts all plays.
    """
    known = spans(sequences.offsets[:-1], targets.known)
    if sequences.timed and len(known):
        times = sequences.times[known]
        recent = known[times > times.max() - popularity_days * MICROSECONDS_PER_DAY]
    else:
        recent = known
    size = sequences.catalogue_size

    before, after = map(torch.from_numpy, transitions(sequences, targets.known))
    return {
        "popularity": Popularity(torch.from_numpy(sequences.items[recent].astype(np.int64)), size),
        "personal_top": PersonalTop(size),
        "markov": Markov(before, after, size),
    }


def judge_baselines(
    questions: QuestionDataset, *, seen: Seen, popularity_days: float
) -> dict[str, Judgement]:
    """Each baseline's judgement on the same questions."""
    others = baselines(questions.sequences, questions.targets, popularity_days)
    return {
        name: judge(partial(_baseline_scores, baseline), questions, seen=seen)
        for name, baseline in others.items()
    }


def _baseline_scores(baseline: Baseline, asked: Questions) -> Tensor:
    return baseline.scores(asked.history, asked.lengths)


def judge_model(module: NextItemModule, questions: QuestionDataset, *, seen: Seen) -> Judgement:
    """The model's judgement, dropout off, on whatever device it is."""
    module.eval()
    with torch.inference_mode():
        return judge(module.score, questions, seen=seen, device=module.device)


def judge_oracle(
    ranks_of: Callable[[int], np.ndarray[tuple[int], np.dtype[np.int32]]],
    questions: QuestionDataset,
) -> Judgement:
    """The ceiling, where the true next-track distribution is known.

    Args:
        ranks_of: for a listener's row, the rank of each play within the true distribution.

    Raises:
        DataError: a listener's plays are not those the ranks were made for.
    """
    for listener, length in enumerate(questions.sequences.lengths.tolist()):
        if len(ranks_of(listener)) != length:
            raise DataError(
                "the synthetic listens in Postgres are not those of this version's world; drop "
                "the dataset's schema, and they are made again"
            )
    ranks, repeated = [], []
    for batch, asked in enumerate(questions):
        chosen = questions.chosen(batch)
        listeners = questions.targets.listeners[chosen]
        positions = questions.targets.positions[chosen]
        ranks += [
            int(ranks_of(u)[p]) for u, p in zip(listeners.tolist(), positions.tolist(), strict=True)
        ]
        repeated.append(repeats(asked))
    ranked = torch.tensor(ranks)
    return Judgement(means(ranked, torch.cat(repeated)), ranked)


def comparison(model: Judgement, others: dict[str, Judgement]) -> dict[str, float]:
    """How sure the model's lead is, and how much of what is possible it reaches.

    ``ndcg_10_low``, ``ndcg_10_high``: 95 % interval of the model's NDCG@10. ``lead_ndcg_10`` with
    ``_low`` and ``_high``: the model minus the best baseline, target by target. A single target
    has no interval. With an oracle that is better than every baseline, ``gap_closed``: the share
    of the way from the best baseline to the oracle.
    """
    best = best_baseline(others)
    gains = {name: ndcg(judged.ranks, 10) for name, judged in (("own", model), *others.items())}
    lead = (gains["own"] - gains[best]).double()
    values = {"lead_ndcg_10": lead.mean().item()}
    for name, interval in (
        ("ndcg_10", mean_interval(gains["own"])),
        ("lead_ndcg_10", mean_interval(lead)),
    ):
        if interval is not None:
            values |= {f"{name}_low": interval.low, f"{name}_high": interval.high}
    if "oracle" in others:
        possible = (gains["oracle"] - gains[best]).double().mean().item()
        if possible > 0:  # on few targets a baseline may be luckier than the truth
            values["gap_closed"] = values["lead_ndcg_10"] / possible
    return values


def best_baseline(judgements: dict[str, Judgement]) -> str:
    """Name of the baseline with the highest NDCG@10."""
    return max(BASELINES, key=lambda name: judgements[name].values["ndcg_10"])
