"""``scripts/forget_user.py``: everything of a listener erased, and a receipt of it.

Postgres first, in one transaction; then what could be made from it again: Redis and snapshots.
Wherever it stops, the same command goes on.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from musicrec.cli import door, flags, outputs, receipts, report
from musicrec.cli.receipts import Receipt
from musicrec.database import erasure
from musicrec.database.engine import Dataset, open_dataset
from musicrec.database.home import home
from musicrec.database.redis_address import RedisAddress, redis_address
from musicrec.errors import ConfigError, DatabaseError
from musicrec.registry.trained import Suspicion, trained_files
from musicrec.registry.versions import models_folder
from musicrec.sources import snapshots

ONLINE, SNAPSHOTS = "online features", "snapshots"

_WORDS = {
    "trained": "trained on the listener",
    "maybe": "may be trained on the listener",
    "unreadable": "cannot be read",
}


def forget_user(config: DictConfig) -> None:
    """Erase ``user`` from ``dataset``; without ``yes=true`` only say what there is."""
    console = Console()
    for key in ("dataset", "user"):
        if config[key] is None:
            raise ConfigError(
                f"whom of which dataset? say user=ID dataset=NAME ({key}= is missing)"
            )
    outputs.check_writable(config.output)
    user_id, places = str(config.user), _places(config.bundles)
    with open_dataset(str(config.dataset)) as dataset:
        path = receipts.path_of(home() / "receipts", dataset.name, user_id)
        redis = _redis()
        receipt = _begin(dataset, user_id, redis, receipts.earlier(path))
        if not config.yes:
            report.say(console, f"what dataset {dataset.name} holds of the user:")
            console.print(_table(receipt))
            raise ConfigError("nothing was erased; add yes=true to erase it, for good")
        outputs.write_json(receipt.as_dict(), path)
        with console.status("erasing"):
            _erase(dataset, user_id, redis)
            receipt.left = _counts(dataset, user_id, redis)
        _look_for_weights(receipt, user_id, places)
        _finish(receipt)
    for file in (path, config.output):
        if file is not None:
            outputs.write_json(receipt.as_dict(), Path(file))
    _say(receipt, path, console)
    if receipt.finished_at is None:
        left = ", ".join(name for name, number in receipt.left.items() if number)
        raise DatabaseError(
            f"the user came back while being erased ({left}): somebody writes what was read "
            "before; run the command again when they are done"
        )


def _places(given: object) -> list[Path]:
    listed = list(given) if OmegaConf.is_list(given) else str(given).split(",")  # type: ignore[call-overload]
    places = [Path(str(place).strip()).absolute() for place in listed]
    return [*places, models_folder(), home() / "retrain"]


def _redis() -> RedisAddress | None:
    """The server that features are served from; None where none was ever named or started."""
    named = any(os.environ.get(f"FEAST_REDIS_{name}", "").strip() for name in ("HOST", "PORT"))
    if not named and not (home() / "redis" / "data").is_dir():
        return None
    try:
        import hiredis  # noqa: F401
        import mmh3  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"there is a Redis, and no way to speak to it here ({error}); install "
            "musicrec[features]"
        ) from error
    return redis_address()


def _begin(
    dataset: Dataset, user_id: str, redis: RedisAddress | None, before: Receipt | None
) -> Receipt:
    traces = erasure.look(dataset, user_id)
    kept = snapshots.kept(_snapshots(), dataset.name, user_id)
    receipt = receipts.begun(
        user_id,
        dataset.name,
        datetime.now(UTC),
        found=traces.counts | _outside(dataset, user_id, redis),
        since=traces.since,
        fingerprints=[place.fingerprint for place in kept if place.holds and place.fingerprint],
        files=traces.files,
        models=traces.models,
        before=before,
    )
    receipt.redis = redis.place if redis else None
    return receipt


def _snapshots() -> Path:
    return home() / "snapshots"


def _counts(dataset: Dataset, user_id: str, redis: RedisAddress | None) -> dict[str, int]:
    return erasure.look(dataset, user_id).counts | _outside(dataset, user_id, redis)


def _outside(dataset: Dataset, user_id: str, redis: RedisAddress | None) -> dict[str, int]:
    counts = {}
    if redis is not None:
        from musicrec.features import forgotten

        counts[ONLINE] = len(forgotten.keys_of(dataset.name, user_id, redis))
    kept = snapshots.kept(_snapshots(), dataset.name, user_id)
    return counts | {SNAPSHOTS: sum(place.holds for place in kept)}


def _erase(dataset: Dataset, user_id: str, redis: RedisAddress | None) -> None:
    with _no_materialization(dataset, redis):
        erasure.erase(dataset, user_id)
        if redis is not None:
            from musicrec.features import forgotten

            forgotten.erase(dataset.name, user_id, redis)
    snapshots.erase(_snapshots(), dataset.name, user_id)


def _no_materialization(
    dataset: Dataset, redis: RedisAddress | None
) -> AbstractContextManager[None]:
    """One under way would write into Redis what it has read before."""
    if redis is None:
        return nullcontext()
    from musicrec.features.materialize import alone

    return alone(dataset)


def _look_for_weights(receipt: Receipt, user_id: str, places: Iterable[Path]) -> None:
    kept = snapshots.kept(_snapshots(), receipt.dataset, user_id)
    suspicion = Suspicion(
        receipt.dataset,
        holding=set(receipt.data_fingerprints),
        clean={place.fingerprint for place in kept if place.fingerprint and not place.holds},
        since=_moment(receipt.held_since),
        until=_moment(receipt.held_until),
    )
    there = [place for place in places if place.exists()]
    receipt.searched = [str(place) for place in there]
    for file in trained_files(there):
        verdict, names_user = suspicion.of(file), file.listener == user_id
        if verdict or names_user:
            receipt.trained.append(
                {
                    "path": str(file.path),
                    "verdict": verdict,
                    "made_at": file.made_at.isoformat(timespec="seconds"),
                    "settings_name_the_user": names_user,
                }
            )


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def _finish(receipt: Receipt) -> None:
    if not any(receipt.left.values()):
        receipt.finished_at = datetime.now(UTC).isoformat(timespec="seconds")
    said = receipt.not_erased
    if receipt.trained:
        said.append("weights cannot forget: delete the files under `trained`, or train them again")
    if receipt.files:
        said.append(
            "the imported files are as they were; to import one of `files` again brings the user "
            "back"
        )
    if receipt.models:
        said.append("what the LLM providers under `models` keep of the calls is in their hands")
    if receipt.found.get("listens"):
        said.append(
            "counts over everybody, such as a track's plays, hold the user until they are "
            "computed anew"
        )
    said.append("what was written for somebody: pages of interest graphs, answers at output=")
    said.append(
        "backups, replicas, Postgres' write-ahead log and files of a Redis of your own keep "
        "what they have until they are rewritten"
    )


def _table(receipt: Receipt) -> Table:
    table = Table()
    table.add_column("place")
    table.add_column("found", justify="right")
    if receipt.left:
        table.add_column("left", justify="right")
    names: Mapping[str, int] = receipt.found | receipt.left
    for name in names:
        cells = [f"{receipt.found.get(name, 0):,}"]
        if receipt.left:
            cells.append(f"{receipt.left.get(name, 0):,}")
        table.add_row(name, *cells)
    return table


def _say(receipt: Receipt, path: Path, console: Console) -> None:
    verb = "is erased from" if receipt.finished_at else "is not wholly erased from"
    report.say(console, f"the user {verb} dataset {receipt.dataset}:")
    console.print(_table(receipt))
    if receipt.redis is None:
        report.say(console, "no Redis was searched: none is named, and none was ever started here")
    for file in receipt.trained:
        words = _WORDS.get(file["verdict"], "has the user's id among its settings")
        report.say(console, f"{words}: {file['path']}")
    if not receipt.trained:
        where = ", ".join(receipt.searched) or "nowhere: none of bundles= is there"
        report.say(console, f"no bundle or checkpoint with the user in it (looked in {where})")
    if receipt.held_since is None:
        report.say(console, "the dataset does not know this user; is the id spelled right?")
    for line in receipt.not_erased:
        report.say(console, f"not erased: {line}")
    report.say(console, f"receipt: {path}")


def main() -> None:
    door.run("forget_user", forget_user, flags.FORGET)
