"""Two bundles of different age asked the same questions, and what sets them apart.

The questions are the test targets of one snapshot. A bundle that was trained on other data has
another vocabulary: ids are mapped by ``track_id``, what it does not know of a history is left out,
and a target it does not know is a miss.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from musicrec.errors import ConfigError
from musicrec.interactions.catalogue import Catalogue
from musicrec.interactions.sequence import Sequences, play_counts
from musicrec.interactions.snapshot import Snapshot
from musicrec.interactions.split import Split, leave_one_out, temporal
from musicrec.metrics.ranking import hit_rate, ndcg, reciprocal_rank
from musicrec.metrics.significance import Interval, mean_interval
from musicrec.metrics.slices import Slice, sliced
from musicrec.registry.bundle import Bundle
from musicrec.training.evaluation import (
    Judgement,
    QuestionDataset,
    Questions,
    check_seen,
    judge,
    repeats,
)

#: By name, never by what a bundle says is to be called: a bundle may be a stranger's.
_SPLITS: Mapping[str, Callable[..., Split]] = {
    "leave_one_out": leave_one_out,
    "temporal": temporal,
}

#: A target with so many plays before it is of a listener that …
_LENGTHS = {"up to 9 plays": 9, "10 to 49": 49, "50 to 199": 199, "200 and more": None}
#: The catalogue by plays in training, most first, as shares of its tracks.
_FAME = {"most played 10 % of tracks": 0.1, "the next 40 %": 0.5, "the other half": 1.0}


class Paired(NamedTuple):
    """A metric of two bundles on the same targets.

    ``difference`` is first less second, target by target; None below two targets.
    """

    metric: str
    first: float
    second: float
    difference: Interval | None


class Examination:
    """The test targets of a snapshot under a bundle's own protocol.

    Args:
        snapshot: the data.
        protocol: a bundle's ``metrics["protocol"]``; its split and ``seen`` are used.
        memory_mb: what ranking a batch may take, in 10⁶ bytes.

    Raises:
        ConfigError: the protocol's split is not known here.
    """

    def __init__(
        self, snapshot: Snapshot, protocol: Mapping[str, Any], *, memory_mb: float = 128
    ) -> None:
        name = protocol["split"]
        if name not in _SPLITS:
            raise ConfigError(f"the bundle was judged by split={name}, which is not known here")
        self.split = _SPLITS[name](snapshot.sequences, **protocol["split_settings"])
        self.sequences: Sequences = snapshot.sequences
        self.fingerprint = snapshot.facts.fingerprint
        self.catalogue = snapshot.catalogue()
        self.seen = check_seen(str(protocol["seen"]))
        self._memory_mb = memory_mb
        self._device = "cuda" if torch.cuda.is_available() else "cpu"

    @property
    def num_targets(self) -> int:
        return len(self.split.test)

    def judge(self, bundle: Bundle) -> Judgement:
        """Rank the snapshot's whole catalogue for each target; ranks in the same order always."""
        score = scores_of(bundle, self.catalogue, self._device)
        try:
            with torch.inference_mode():
                return judge(score, self._questions(), seen=self.seen, device=self._device)
        finally:
            bundle.model.cpu()

    def num_unknown(self, bundle: Bundle) -> int:
        """Targets whose track the bundle does not know, which it can but miss."""
        items = self.split.test.items(self.sequences)
        asked = [self.catalogue.track_id(int(item)) for item in items]
        return len(bundle.catalogue.indices(asked)[1])

    def slices(self, judgement: Judgement) -> list[Slice]:
        """What it reached on all targets and on parts of them."""
        questions, ranks = self._questions(), judgement.ranks
        targets, order = self.split.test, questions.order
        heard = torch.cat([repeats(batch) for batch in questions])
        everything = torch.ones(len(ranks), dtype=torch.bool)
        length = torch.from_numpy(targets.positions[order].copy())
        items = torch.from_numpy(targets.items(self.sequences)[order].astype("int64"))
        trained = torch.from_numpy(self.split.train[targets.listeners[order]])
        plays = torch.from_numpy(play_counts(self.sequences, self.split.train))
        return [
            *sliced(ranks, "all", {"all targets": everything}),
            *sliced(ranks, "heard before", {"repeat": heard, "explore": ~heard}),
            *sliced(ranks, "listener's plays before", _between(length, _LENGTHS)),
            *sliced(ranks, "target's plays in training", _by_fame(items, plays)),
            *sliced(ranks, "listener in training", {"none (cold)": trained == 0}),
        ]

    def _questions(self) -> QuestionDataset:
        # One shape for all who are asked: it decides on the order of the ranks.
        return QuestionDataset(
            self.sequences, self.split.test, memory_mb=self._memory_mb, max_length=200, dim=128
        )


def scores_of(
    bundle: Bundle, catalogue: Catalogue, device: torch.device | str = "cpu"
) -> Callable[[Questions], Tensor]:
    """What a bundle answers in terms of another catalogue; what it does not know is ``-inf``."""
    own = [bundle.catalogue.indices([track_id])[0] for track_id in catalogue.track_ids]
    index = torch.tensor([0, *(known[0] if known else 0 for known in own)], device=device)
    model = bundle.model.eval().to(device)
    table = model.output_table()

    def score(asked: Questions) -> Tensor:
        items = index[asked.history]
        lengths = torch.zeros_like(asked.lengths)
        lengths = lengths.index_add_(0, asked.row[items > 0], torch.ones_like(items[items > 0]))
        has_history = lengths > 0
        scores = torch.full((len(lengths), len(index)), float("-inf"), device=items.device)
        if has_history.any():
            known = Questions(items[items > 0], lengths[has_history], asked.target[has_history])
            answer = model.scores(model.encode_last(*known.newest(model.max_length)), table)
            scores[has_history] = answer[:, index]  # 0, the padding, is -inf
        return scores

    return score


def paired(first: Judgement, second: Judgement) -> list[Paired]:
    """What sets two judgements of one examination apart."""
    rows = []
    for name, of_ranks in (
        ("NDCG@10", lambda ranks: ndcg(ranks, 10)),
        ("HR@10", lambda ranks: hit_rate(ranks, 10)),
        ("MRR", reciprocal_rank),
    ):
        ours, theirs = (of_ranks(judged.ranks).double() for judged in (first, second))
        interval = mean_interval(ours - theirs)
        rows.append(Paired(name, ours.mean().item(), theirs.mean().item(), interval))
    return rows


def _between(values: Tensor, ends: Mapping[str, int | None]) -> dict[str, Tensor]:
    parts, start = {}, -1
    for name, end in ends.items():
        is_in = values > start
        parts[name] = is_in if end is None else is_in & (values <= end)
        start = start if end is None else end
    return parts


def _by_fame(items: Tensor, plays: Tensor) -> dict[str, Tensor]:
    """Targets by where their track stands in the order of plays; never played is a part of its own.

    Args:
        items: ``(targets,)`` item index.
        plays: ``(catalogue_size + 1,)``.
    """
    place = torch.empty_like(plays)
    place[plays.argsort(descending=True, stable=True)] = torch.arange(len(plays))
    share, is_cold = place[items] / max(len(plays) - 1, 1), plays[items] == 0
    parts, start = {}, 0.0
    for name, end in _FAME.items():
        parts[name] = (share >= start) & ((share < end) | (end == 1.0)) & ~is_cold
        start = end
    return {**parts, "none (cold)": is_cold}
