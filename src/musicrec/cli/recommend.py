"""``scripts/recommend.py``: what a trained model would play next."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from musicrec.cli import door, flags, outputs, report
from musicrec.errors import ConfigError
from musicrec.registry.versions import resolve
from musicrec.serving.asking import Source
from musicrec.serving.listening import listening_of_items
from musicrec.serving.pipeline import Chosen
from musicrec.serving.reasons import Grounds, Reasons
from musicrec.serving.recommender import Recommendations, Recommender

if TYPE_CHECKING:
    from musicrec.cli.interests import ListenerInterests


def recommend(config: DictConfig) -> None:
    """Recommend for a listener of a dataset, or for a history given on the command line."""
    console = Console()
    outputs.check_writable(config.output)
    recommender = Recommender.load(resolve(config.bundle))
    history, interests = _listening(config, recommender)
    bonus = None
    if interests and config.graph_weight:
        every_item = np.arange(1, len(recommender.bundle.catalogue) + 1)
        bonus = config.graph_weight * interests.affinity(every_item)
    answer = recommender.recommend(history, k=config.k, seen=config.seen, bonus=bonus)
    reasons = _reasons(recommender, history, answer, interests)
    whom = f"for user {config.user}" if config.user is not None else "for this history"
    console.print(report.recommendations_table(answer, f"next {whom}", reasons))
    if answer.unknown:
        some = ", ".join(answer.unknown[:5]) + (", …" if len(answer.unknown) > 5 else "")
        report.say(console, f"unknown to the model and left out: {len(answer.unknown)} ({some})")
    if config.output is not None:
        outputs.write_json(asdict(answer) | {"reasons": reasons}, Path(config.output))


def _reasons(
    recommender: Recommender,
    history: list[str],
    answer: Recommendations,
    interests: ListenerInterests | None,
) -> list[tuple[str, ...]]:
    """Why each track is recommended, as far as history, model and graph say."""
    catalogue = recommender.bundle.catalogue
    items = [catalogue.indices([track.track_id])[0][0] for track in answer]
    source: Source = "graph" if interests else "sasrec"
    chosen = [
        Chosen(item, track.score, (source,)) for item, track in zip(items, answer, strict=True)
    ]
    played = np.array(catalogue.indices(history)[0], np.int64)
    grounds = Grounds(listening_of_items(played, times=None), interests=interests)
    return Reasons(catalogue, recommender.bundle.model).of(chosen, grounds)


def _listening(
    config: DictConfig, recommender: Recommender
) -> tuple[list[str], ListenerInterests | None]:
    """The history to go on from, and the user's interests where a graph was made of them."""
    if (config.user is None) == (config.history is None):
        raise ConfigError("say either user=ID with dataset=NAME, or history=[ID,ID,…]")
    if config.history is not None:
        if not OmegaConf.is_list(config.history):
            return [str(config.history)], None
        return [str(track_id) for track_id in config.history], None
    if config.dataset is None:
        raise ConfigError(f"user={config.user} of which dataset? add dataset=NAME")
    # Here, because a history on the command line needs no database at all.
    from musicrec.cli.interests import interests_of
    from musicrec.database.engine import open_dataset
    from musicrec.sources.history import history_of

    with open_dataset(str(config.dataset)) as dataset:
        history = history_of(dataset, str(config.user))
        interests = interests_of(dataset, str(config.user), recommender.bundle.catalogue)
    if config.graph_weight and interests is None:
        raise ConfigError(
            f"graph_weight={config.graph_weight}: user {config.user} has no interest graph; make "
            f"one with scripts/generate_interest_graph.py dataset={config.dataset} "
            f"--user-id {config.user}"
        )
    return history, interests


def main() -> None:
    door.run("recommend", recommend, flags.RECOMMEND)
