"""The model that the service would take, and the versions of all models."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psycopg

from musicrec.cli.console import spelt
from musicrec.cli.doctor.findings import Asked, Finding, failed
from musicrec.cli.doctor.servers import found_postgres, look_inside
from musicrec.database.address import Address
from musicrec.database.engine import names_in
from musicrec.database.home import location
from musicrec.errors import BundleError, MusicrecError
from musicrec.registry import bundle as bundles
from musicrec.registry import versions
from musicrec.registry.bundle import Bundle
from musicrec.registry.probe import probe

#: The service's, for where no ``bundle=`` is given.
MODEL_PATH = "SEQUENTIAL_MODEL_PATH"

#: Tracks of the model that are looked for among those of the dataset.
_SAMPLE = 1000


def model(asked: Asked) -> Iterator[Finding]:
    named = asked.bundle or os.environ.get(MODEL_PATH, "").strip()
    fix = f"make train, or {spelt('train', '--output', 'model.pt')}"
    if named.startswith("models:") and not _has_versions():
        yield Finding("model", "broken", f"{named}: no model is registered", _REGISTER)
        return
    path = versions.resolve(named or "model.pt").expanduser()
    if not path.exists() and not named:
        yield Finding("model", "not set", f"no model.pt in {Path.cwd()}", fix)
        return
    try:
        bundle = bundles.load(path)
        _probe(bundle, path)
    except BundleError as error:
        yield failed("model", error, fix if not path.exists() else "")
        return
    said = f"{path.absolute()} opens and answers: {len(bundle.catalogue):,} tracks"
    made = f"made {bundle.created_at} at commit {bundle.commit}"
    yield Finding("model", "ok", f"{said}, {made}")
    yield from _vocabulary(asked, bundle)


def _probe(bundle: Bundle, path: Path) -> None:
    try:
        probe(bundle)
    except BundleError as error:
        raise BundleError(f"{path} opens, and does not answer: {error}; train it again") from error


def _vocabulary(asked: Asked, bundle: Bundle) -> Iterator[Finding]:
    """Whether the model knows the tracks of the dataset that it is to answer for."""
    server = found_postgres(asked)
    if not isinstance(server, Address):
        return
    dataset = asked.dataset or bundle.metrics["protocol"].get("dataset")
    with look_inside(server) as connection:
        if dataset not in names_in(connection):
            return
    ids = bundle.catalogue.track_ids
    some = [ids[i] for i in np.linspace(0, len(ids) - 1, min(_SAMPLE, len(ids))).astype(int)]
    try:
        with look_inside(server, str(dataset)) as connection:
            (known,) = connection.execute(
                "SELECT count(*) FROM tracks WHERE track_id = ANY(%s)", (some,)
            ).fetchone() or (0,)
    except psycopg.Error as error:
        yield failed("vocabulary", server.failure(error))
        return
    said = f"{known / len(some):.0%} of its tracks are in dataset {dataset}"
    fix = spelt("train", "data=postgres", f"dataset={dataset}", "output=model.pt")
    if known == 0:
        yield Finding("vocabulary", "broken", f"{said}: it is another dataset's model", fix)
    elif known < len(some) / 2:
        yield Finding("vocabulary", "warning", said, fix)
    else:
        yield Finding("vocabulary", "ok", said)


_REGISTER = spelt("models", "register", "bundle=model.pt")


def _has_versions() -> bool:
    """Without a look, which would make the home."""
    return bool(os.environ.get(versions.MODELS)) or location().is_dir()


def aliases(asked: Asked) -> Iterator[Finding]:
    names = versions.model_names() if _has_versions() else []
    if not names:
        yield Finding("model versions", "not set", "no model is registered", _REGISTER)
    for name in names:
        check = f"model {name}"
        try:
            yield _aliases(check, versions.Model(name))
        except MusicrecError as error:
            yield failed(check, error)


def _aliases(check: str, model: versions.Model) -> Finding:
    champion, challenger = model.aliased("champion"), model.aliased("challenger")
    for version in (champion, challenger):
        if version is not None:
            version.check_whole()
    said = f"{len(model.numbers())} versions"
    if challenger is not None:
        said += f", challenger {challenger.number}"
    if champion is None:
        fix = spelt("models", "promote", f"name={model.name}")
        return Finding(check, "warning", f"{said}, and no champion to serve", fix)
    return Finding(check, "ok", f"champion {champion.number}; {said}")
