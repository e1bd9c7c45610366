"""What changes a model's versions: registering, promoting, rolling back.

Each change is made alone (a lock), is there or not (a rename), and is written down. A link is
switched by renaming another over it, so whoever opens ``champion/model.pt`` finds the old one or
the new one, whole. A version's bundle and record never change; its card may.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from musicrec.database.locks import exclusive
from musicrec.errors import BundleError, ConfigError
from musicrec.registry import bundle as bundles
from musicrec.registry import history
from musicrec.registry.bundle import Bundle
from musicrec.registry.card import card
from musicrec.registry.probe import probe
from musicrec.registry.versions import BUNDLE, CARD, RECORD, Alias, Model, Version, digest_of
from musicrec.registry.whole import whole_file


def register(
    model: Model, source: Path, *, why: str, origin: Mapping[str, Any] | None = None
) -> Version:
    """Take a copy of a bundle as the newest version, and make it challenger.

    A bundle that is registered already keeps its number.

    Args:
        source: the bundle's file.
        why: for the history.
        origin: more for the record, of how it came to be.

    Raises:
        BundleError: it does not open, or does not answer as a model must; nothing is left.
    """
    bundle = bundles.load(source)
    try:
        probe(bundle)
    except BundleError as error:
        raise BundleError(f"{source} is not fit to be registered: {error}") from error
    digest = digest_of(source)
    with _alone(model):
        known = [each for each in model.versions() if each.record["digest"] == digest]
        version = known[-1] if known else _added(model, source, digest, bundle, origin or {})
        if not known:
            history.append(model.history_path, "registered", version.number, why)
        if model.linked("champion") != version.number:
            _link(model, "challenger", version.number)
    return version


def promote(
    model: Model,
    version: Version,
    *,
    instead_of: Version | None,
    why: str,
    checks: Sequence[Mapping[str, Any]] = (),
    is_forced: bool = False,
) -> None:
    """Make a version champion.

    Args:
        version: seen to be fit.
        instead_of: the champion that it was judged against.
        why: for the history; so are the checks.

    Raises:
        ConfigError: another has become champion meanwhile.
        BundleError: its file is not as it was registered; the champion stays.
    """
    version.check_whole()
    with _alone(model):
        before = model.linked("champion")
        if before != (None if instead_of is None else instead_of.number):
            raise ConfigError(
                f"version {before} of {model.name} became champion while version "
                f"{version.number} was judged; promote it again"
            )
        _make_champion(model, version.number)
        more = {"before": before, "forced": is_forced, "checks": list(checks)}
        history.append(model.history_path, "promoted", version.number, why, **more)


def refuse(
    model: Model, version: Version, *, why: str, checks: Sequence[Mapping[str, Any]]
) -> None:
    """Write down that a version was judged and not promoted; nothing else changes."""
    with _alone(model):
        more = {"before": model.linked("champion"), "checks": list(checks)}
        history.append(model.history_path, "refused", version.number, why, **more)


def rollback(model: Model, why: str) -> tuple[Version, Version]:
    """Make the champion before the champion again.

    Returns:
        What is champion now, and what was.

    Raises:
        ConfigError: there is no champion, or there was none before it.
        BundleError: the one before is damaged; the champion stays.
    """
    with _alone(model):
        past = history.champions(model.history())
        if len(past) < 2:
            state = f"version {past[0]} is the first" if past else "there is none at all"
            raise ConfigError(
                f"model {model.name} had no champion before this one: {state}; to promote another: "
                f"python scripts/models.py promote name={model.name} version=N"
            )
        version, left = model.version(past[-2]), past[-1]
        version.check_whole()
        _make_champion(model, version.number)
        history.append(model.history_path, "rolled_back", version.number, why, before=left)
    return version, model.version(left)


def write_card(version: Version, text: str) -> None:
    """Put another card in the place of a version's."""
    with whole_file(version.card) as file:
        file.write(text.encode())


def _make_champion(model: Model, number: int) -> None:
    _link(model, "champion", number)
    if model.linked("challenger") == number:
        (model.folder / "challenger").unlink()


def _link(model: Model, alias: Alias, number: int) -> None:
    link = model.folder / f".{alias}.{os.getpid()}"
    link.unlink(missing_ok=True)
    link.symlink_to(Path("versions") / str(number))
    link.replace(model.folder / alias)
    _sync(model.folder)


def _added(
    model: Model, source: Path, digest: str, bundle: Bundle, origin: Mapping[str, Any]
) -> Version:
    given = [int(event["version"]) for event in model.history()]
    number = max([0, *given, *model.numbers()]) + 1
    folder = model.folder / "versions" / str(number)
    unfinished = folder.with_name(f".{number}")
    unfinished.mkdir()
    try:
        shutil.copyfile(source, unfinished / BUNDLE)
        if digest_of(unfinished / BUNDLE) != digest:
            raise BundleError(f"{source} changed while it was copied; register it again")
        record = {
            "name": model.name,
            "version": number,
            "digest": digest,
            "bytes": source.stat().st_size,
            "dataset": str(bundle.metrics["protocol"]["dataset"]),
            "data_fingerprint": bundle.data_fingerprint,
            "commit": bundle.commit,
            "created_at": bundle.created_at,
            "registered_at": history.now(),
            "registered_by": history.who(),
            "source": str(source.absolute()),
            "origin": dict(origin),
            "metrics": bundle.metrics,
        }
        (unfinished / RECORD).write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
        version = Version(model.name, number, folder, record)
        (unfinished / CARD).write_text(card(version, bundle))
        for path in unfinished.iterdir():
            _sync(path)
        unfinished.rename(folder)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    _sync(folder.parent)
    return version


@contextmanager
def _alone(model: Model) -> Iterator[None]:
    """Let nobody else change anything of this model, and clear up what a kill has left."""
    (model.folder / "versions").mkdir(parents=True, exist_ok=True)
    with exclusive(model.folder / ".lock"):
        for left in (model.folder / "versions").glob(".*"):
            shutil.rmtree(left)
        champion = model.linked("champion")
        if champion is not None and history.champions(model.history())[-1:] != [champion]:
            why = "the link was switched, and whoever did it did not write it down"
            history.append(model.history_path, "found", champion, why)
        yield


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
