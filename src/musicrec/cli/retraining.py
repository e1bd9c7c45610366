"""From what Postgres holds now to a new champion, or to the reason why there is none.

Wherever it is stopped, the champion stays, and the same call goes on: with the training that was
stopped, with the bundle that was not registered, with the challenger that was not judged.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from musicrec.cli import candidacy
from musicrec.cli.job import Log
from musicrec.cli.listens import streaming_bar
from musicrec.database.engine import open_dataset
from musicrec.database.home import home
from musicrec.errors import MusicrecError
from musicrec.interactions.snapshot import Facts
from musicrec.registry import changes
from musicrec.registry.policy import Policy
from musicrec.registry.versions import Model, Version
from musicrec.registry.whole import whole_file
from musicrec.sources import stream
from musicrec.training.checkpoints import LAST, PREVIOUS

#: What a training's folder says of itself: its data and settings, and the version it became.
NOTE = "retrain.json"

#: Trains into a folder, from its own checkpoint if told so; the exit status.
Train = Callable[[Path, bool], int]


class TrainingFailed(MusicrecError):
    """The training ended with an error, which it has said itself."""


@dataclass(frozen=True)
class Order:
    """What is to be trained.

    Attributes:
        dataset: its listens.
        name: of the model.
        settings: overrides of the training, as typed.
        policy: what is asked of the challenger.
        force: train although nothing is new.
        keep_runs: folders of past trainings to keep.
    """

    dataset: str
    name: str
    settings: tuple[str, ...]
    policy: Policy
    force: bool = False
    keep_runs: int = 4


def retrain(order: Order, train: Train, folder: Path, log: Log, console: Console) -> bool:
    """One round.

    Args:
        train: does the training.
        folder: of the rounds of this model; held alone.

    Returns:
        Whether the champion is trained on what there is: False means that the challenger was
        refused.

    Raises:
        TrainingFailed: it says why itself.
    """
    model = Model(order.name)
    facts = _fresh(order.dataset, console)
    log.tell(
        "data",
        f"dataset {order.dataset}: {facts.num_interactions:,} listens of {facts.num_listeners:,} "
        f"listeners, fingerprint {facts.fingerprint[:12]}",
        data_fingerprint=facts.fingerprint,
        interactions=facts.num_interactions,
    )
    reason = None if order.force else _nothing_new(model, facts.fingerprint)
    if reason is not None:
        log.tell("nothing_new", f"nothing new: {reason}; force=true trains all the same")
        return True
    challenger = None if order.force else _waiting(model, order, facts.fingerprint)
    if challenger is not None:
        log.tell(
            "known",
            f"{challenger.spelt} was trained on just these data; it is judged again",
            version=challenger.number,
        )
    else:
        run = _trained(order, facts.fingerprint, train, folder, log)
        challenger = _registered(model, order, run, log)
        changes.write_card(challenger, candidacy.card_of(challenger, console)[0])
        _prune(folder, order.keep_runs)
    return _judged(model, challenger, order.policy, log, console)


def _fresh(name: str, console: Console) -> Facts:
    with open_dataset(name) as dataset, streaming_bar(console) as on_progress:
        return stream.snapshot(dataset, home() / "snapshots", on_progress).facts


def _nothing_new(model: Model, fingerprint: str) -> str | None:
    """Why there is nothing to train on; None where there is."""
    champion = candidacy.champion_to_beat(model)
    if champion is not None and champion.record.get("data_fingerprint") == fingerprint:
        return f"{champion.spelt}, the champion, was trained on just these data"
    told = model.history()
    left = {event["before"] for event in told if event["what"] == "rolled_back"}
    for version in reversed(model.versions()):
        if version.data_fingerprint == fingerprint and version.number in left:
            return f"{version.spelt} was trained on just these data, and was rolled back"
    return None


def _waiting(model: Model, order: Order, fingerprint: str) -> Version | None:
    """A version of these data and settings that is not champion."""
    for version in reversed(model.versions()):
        same = version.record["origin"].get("settings") == list(order.settings)
        if same and version.data_fingerprint == fingerprint:
            return version
    return None


def _trained(order: Order, fingerprint: str, train: Train, folder: Path, log: Log) -> Path:
    """A folder with the bundle of a training of these data and settings."""
    note = {"data_fingerprint": fingerprint, "settings": list(order.settings)}
    run = _left(folder, note)
    if run is not None and (run / "model.pt").exists():
        log.tell("trained", f"the training in {run} had ended; going on with it", run=run)
        return run
    if run is not None:
        log.tell("training", f"going on with the training in {run}", run=run, resumed=True)
        if train(run, True) == 0:
            return run
        log.tell("not_resumed", f"it cannot be gone on with; training anew, {run} is left as it is")
        _write_note(run, note | {"abandoned": True})
    run = _new_folder(folder)
    _write_note(run, note)
    log.tell("training", f"training in {run}", run=run, resumed=False)
    start = datetime.now(UTC)
    if status := train(run, False):
        raise TrainingFailed(
            f"the training in {run} ended with status {status}, for the reason above; the champion "
            "stays"
        )
    seconds = round((datetime.now(UTC) - start).total_seconds(), 1)
    log.tell("trained", f"trained in {seconds:,} s", run=run, seconds=seconds)
    return run


def _left(folder: Path, note: dict[str, Any]) -> Path | None:
    """The newest folder of just this training that can be gone on with."""
    for run in reversed(_runs(folder)):
        if _note(run) != note:  # of other data or settings, registered, or given up
            continue
        checkpoints = run / "checkpoints"
        if (run / "model.pt").exists() or any((checkpoints / n).exists() for n in (LAST, PREVIOUS)):
            return run
    return None


def _new_folder(folder: Path) -> Path:
    base = datetime.now(UTC).strftime("%Y-%m-%d_%H-%M-%S")
    names = (base, *(f"{base}_{number}" for number in range(2, 1000)))
    run = next(folder / name for name in names if not (folder / name).exists())
    run.mkdir(parents=True)
    return run


def _registered(model: Model, order: Order, run: Path, log: Log) -> Version:
    origin = {"command": "retrain", "run": str(run), "settings": list(order.settings)}
    version = changes.register(model, run / "model.pt", why="retrained", origin=origin)
    _write_note(run, (_note(run) or {}) | {"version": version.number})
    log.tell(
        "registered",
        f"registered: {version.spelt}",
        version=version.number,
        ndcg_10=version.record["metrics"].get("test/ndcg_10"),
    )
    return version


def _judged(model: Model, challenger: Version, policy: Policy, log: Log, console: Console) -> bool:
    champion = candidacy.champion_to_beat(model)
    verdict = candidacy.judged(challenger, champion, policy, console)
    candidacy.say(verdict, console)
    checks = verdict.as_dicts()
    figures = {"version": challenger.number, "checks": checks}
    figures["champion"] = None if champion is None else champion.number
    if verdict.is_passed:
        changes.promote(model, challenger, instead_of=champion, why=verdict.why, checks=checks)
        before = "" if champion is None else f" instead of version {champion.number}"
        log.tell("promoted", f"{challenger.spelt} is champion{before}", **figures)
        return True
    changes.refuse(model, challenger, why=verdict.why, checks=checks)
    stays = "there is still no champion" if champion is None else f"{champion.spelt} stays"
    log.tell("refused", f"{challenger.spelt} is refused, and {stays}: {verdict.why}", **figures)
    return False


def _prune(folder: Path, keep: int) -> None:
    """Past trainings beyond the newest ones; their bundles are in the registry."""
    for run in _runs(folder)[:-keep]:
        shutil.rmtree(run)


def _runs(folder: Path) -> list[Path]:
    """Folders of trainings, oldest first."""
    notes: Iterable[Path] = folder.glob(f"*/{NOTE}")
    return sorted((note.parent for note in notes), key=lambda run: run.name)


def _note(run: Path) -> dict[str, Any] | None:
    try:
        told: dict[str, Any] = json.loads((run / NOTE).read_text())
    except (OSError, ValueError):
        return None
    return told


def _write_note(run: Path, note: dict[str, Any]) -> None:
    with whole_file(run / NOTE) as file:
        file.write((json.dumps(note, indent=1) + "\n").encode())
