"""``scripts/recommend.py``: what a trained model would play next."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from musicrec.cli import door, flags, outputs, report
from musicrec.errors import ConfigError
from musicrec.serving.recommender import Recommender


def recommend(config: DictConfig) -> None:
    """Recommend for a listener of a dataset, or for a history given on the command line."""
    console = Console()
    outputs.check_writable(config.output)
    recommender = Recommender.load(config.bundle)
    answer = recommender.recommend(_history(config), k=config.k, seen=config.seen)
    whom = f"for user {config.user}" if config.user is not None else "for this history"
    console.print(report.recommendations_table(answer, f"next {whom}"))
    if answer.unknown:
        some = ", ".join(answer.unknown[:5]) + (", …" if len(answer.unknown) > 5 else "")
        report.say(console, f"unknown to the model and left out: {len(answer.unknown)} ({some})")
    if config.output is not None:
        outputs.write_json(asdict(answer), Path(config.output))


def _history(config: DictConfig) -> list[str]:
    if (config.user is None) == (config.history is None):
        raise ConfigError("say either user=ID with dataset=NAME, or history=[ID,ID,…]")
    if config.history is not None:
        if not OmegaConf.is_list(config.history):
            return [str(config.history)]
        return [str(track_id) for track_id in config.history]
    if config.dataset is None:
        raise ConfigError(f"user={config.user} of which dataset? add dataset=NAME")
    # Here, because a history on the command line needs no database at all.
    from musicrec.database.engine import open_dataset
    from musicrec.sources.history import history_of

    with open_dataset(str(config.dataset)) as dataset:
        return history_of(dataset, str(config.user))


def main() -> None:
    door.run("recommend", recommend, flags.RECOMMEND)
