"""Answers from a bundle alone: outside ids in, outside ids out, no database."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from musicrec.errors import ConfigError, DataError
from musicrec.registry import bundle as bundles
from musicrec.registry.bundle import Bundle
from musicrec.serving.candidates import best_of


@dataclass(frozen=True, slots=True)
class Recommendation:
    """One recommended track; ``score`` orders within one answer and means nothing beyond it."""

    track_id: str
    title: str | None
    artist: str | None
    score: float


@dataclass(frozen=True)
class Recommendations(Sequence[Recommendation]):
    """An answer, best first.

    Attributes:
        tracks: the recommended tracks.
        unknown: ids of the history that the model has never met, in their order; they were left
            out of account.
    """

    tracks: tuple[Recommendation, ...]
    unknown: tuple[str, ...]

    @overload
    def __getitem__(self, place: int) -> Recommendation: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Recommendation]: ...
    def __getitem__(self, place: int | slice) -> Recommendation | Sequence[Recommendation]:
        return self.tracks[place]

    def __len__(self) -> int:
        return len(self.tracks)

    def __iter__(self) -> Iterator[Recommendation]:
        return iter(self.tracks)

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{place}</td><td>{escape(t.title or t.track_id)}</td>"
            f"<td>{escape(t.artist or '')}</td><td>{t.score:.2f}</td></tr>"
            for place, t in enumerate(self.tracks, start=1)
        )
        return f"<table><tr><th></th><th>title</th><th>artist</th><th>score</th></tr>{rows}</table>"


class Recommender:
    """A trained model that answers.

    >>> recommender = Recommender.load("model.pt")            # doctest: +SKIP
    >>> recommender.recommend(["id1", "id2"], k=10).tracks    # doctest: +SKIP
    """

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        with torch.inference_mode():
            self._table = bundle.model.output_table()

    @classmethod
    def load(cls, path: str | Path) -> Recommender:
        """Open a bundle.

        Raises:
            BundleError: missing, torn or of another version.
        """
        return cls(bundles.load(Path(path)))

    @torch.inference_mode()
    def recommend(
        self,
        history: Iterable[str],
        k: int = 10,
        *,
        seen: str | None = None,
        exclude: Iterable[str] = (),
        bonus: NDArray[np.float32] | None = None,
    ) -> Recommendations:
        """The ``k`` tracks most likely to come next.

        Args:
            history: outside track ids, oldest first. Ids the model does not know are left out
                and named in ``unknown``.
            k: how many; fewer come back if the catalogue has no more to offer.
            seen: ``keep`` may recommend tracks of the history, ``drop`` does not; by default as
                the model was judged.
            exclude: outside ids never to recommend; unknown ones exclude nothing.
            bonus: ``(catalogue_size,)`` added to the model's scores (logits), in the order of item
                indices: what somebody else knows of the listener.

        Raises:
            DataError: not one id of the history is known.
            ConfigError: ``k`` below 1, another ``seen``, or a text for a list.
        """
        if isinstance(history, str):
            raise ConfigError(f"history={history!r} is one text; give a list of track ids")
        if k < 1:
            raise ConfigError(f"k={k} must be at least 1")
        seen = self.bundle.seen if seen is None else seen
        if seen not in ("keep", "drop"):
            raise ConfigError(f"seen={seen!r} is not one of keep, drop")
        heard, unknown = self.bundle.catalogue.indices(history)
        if not heard:
            raise DataError(
                f"the model knows none of the {len(unknown)} tracks of this history"
                + (f", such as {unknown[0]!r}" if unknown else "")
                + "; give at least one track it was trained on"
            )
        excluded, _ = self.bundle.catalogue.indices(exclude)
        scores = self._scores(heard)
        if bonus is not None:
            scores[1:] += torch.from_numpy(bonus)
        scores[excluded + (heard if seen == "drop" else [])] = float("-inf")
        return Recommendations(self._best(scores, k), tuple(unknown))

    def _scores(self, heard: list[int]) -> Tensor:
        model = self.bundle.model
        items = torch.tensor(heard[-model.max_length :])
        known = model.encode_last(items, torch.tensor([len(items)]))
        scores: Tensor = model.scores(known, self._table)[0]
        return scores

    def _best(self, scores: Tensor, k: int) -> tuple[Recommendation, ...]:
        catalogue = self.bundle.catalogue
        items, values = best_of(scores, k)
        return tuple(
            Recommendation(
                track_id=catalogue.track_id(index),
                title=catalogue.titles[index - 1],
                artist=catalogue.artists[index - 1],
                score=score,
            )
            for score, index in zip(values.tolist(), items.tolist(), strict=True)
        )
