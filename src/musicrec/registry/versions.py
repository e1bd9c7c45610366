"""Model versions: bundles under numbers, of which one is the champion. A folder, and no server.

::

    models/mine/versions/3/model.pt       the bundle, as it was registered
                           record.json    where it is from, its digest and its metrics
                           card.md        what a person should know of it
                champion -> versions/3    what ``models:/mine@champion`` is
                challenger -> versions/4  registered last, and not promoted
                history.jsonl             who did what, when and why

What changes any of it stands in ``musicrec.registry.changes``.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from musicrec.database.home import home
from musicrec.errors import BundleError, ConfigError, nearest
from musicrec.registry import bundle as bundles
from musicrec.registry import history
from musicrec.registry.bundle import Bundle

Alias = Literal["champion", "challenger"]

#: Names the folder of all models, where it is not ``models`` of the home.
MODELS = "MUSICREC_MODELS"

BUNDLE, RECORD, CARD = "model.pt", "record.json", "card.md"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_SPELT = re.compile(r"models:/([^/@]+)(?:@([^/@]+)|/(\d+))")


def models_folder() -> Path:
    """The folder of all models; need not exist yet."""
    named = os.environ.get(MODELS, "").strip()
    return Path(named).expanduser().absolute() if named else home() / "models"


def resolve(text: str | Path) -> Path:
    """The file that a ``bundle=`` names: a path, ``models:/NAME@champion`` or ``models:/NAME/3``.

    The path of an alias goes through its link: whoever looks there again finds what it is then.
    The file need not be there.

    Raises:
        ConfigError: it begins like a model version and is none.
    """
    if not str(text).startswith("models:"):
        return Path(text)
    spelt = _SPELT.fullmatch(str(text))
    if spelt is None or (spelt[2] and spelt[2] not in get_args(Alias)):
        raise ConfigError(
            f"bundle={text} is no model version; say models:/NAME@champion, "
            "models:/NAME@challenger or models:/NAME/NUMBER"
        )
    folder = Model(spelt[1]).folder
    return folder / (spelt[2] or f"versions/{int(spelt[3])}") / BUNDLE


def model_names() -> list[str]:
    """Every model that has a version."""
    folder = models_folder()
    return sorted(path.parent.name for path in folder.glob("*/versions") if path.is_dir())


@dataclass(frozen=True, slots=True)
class Version:
    """A registered bundle.

    Attributes:
        name: of the model.
        number: from 1; none is given twice.
        folder: its own.
        record: what ``record.json`` holds.
    """

    name: str
    number: int
    folder: Path
    record: Mapping[str, Any]

    @property
    def path(self) -> Path:
        return self.folder / BUNDLE

    @property
    def card(self) -> Path:
        return self.folder / CARD

    @property
    def data_fingerprint(self) -> str:
        return str(self.record["data_fingerprint"])

    @property
    def dataset(self) -> str:
        return str(self.record["dataset"])

    @property
    def spelt(self) -> str:
        return f"models:/{self.name}/{self.number}"

    def open(self) -> Bundle:
        """The bundle, seen to be the one that was registered.

        Raises:
            BundleError: it is gone, or not as it was.
        """
        self.check_whole()
        return bundles.load(self.path)

    def check_whole(self) -> None:
        """See whether the file is the one that was registered, without opening it.

        Raises:
            BundleError: it is gone, or not as it was.
        """
        if not self.path.is_file():
            raise BundleError(f"{self.spelt} has lost its file {self.path}; register it again")
        if digest_of(self.path) != self.record["digest"]:
            raise BundleError(
                f"{self.path} is not as it was registered; copy it back from a backup"
            )


class Model:
    """The versions of one model; made by the first registration.

    Args:
        name: of the model; a dataset's, where nobody says another.

    Raises:
        ConfigError: the name cannot be a folder's.
    """

    def __init__(self, name: str) -> None:
        if not _NAME.fullmatch(name):
            raise ConfigError(
                f"{name!r} is no name of a model; take letters, digits, _, - and ., such as mine"
            )
        self.name = name
        self.folder = models_folder() / name
        self.history_path = self.folder / "history.jsonl"

    def versions(self) -> list[Version]:
        """All of them, oldest first."""
        return [self.version(number) for number in self.numbers()]

    def version(self, number: int) -> Version:
        """One of them.

        Raises:
            ConfigError: there is no such version.
            BundleError: its record cannot be read.
        """
        folder = self.folder / "versions" / str(number)
        if not folder.is_dir():
            known = ", ".join(map(str, self.numbers())) or "none"
            raise ConfigError(f"model {self.name} has no version {number}; it has: {known}")
        try:
            record = json.loads((folder / RECORD).read_text())
            record["digest"], record["data_fingerprint"], record["dataset"]
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise BundleError(
                f"{folder / RECORD} cannot be read ({type(error).__name__}); delete the folder "
                "and register the bundle again"
            ) from error
        return Version(self.name, number, folder, record)

    def aliased(self, alias: Alias) -> Version | None:
        """The version an alias stands for; None where it stands for none.

        Raises:
            BundleError: it stands for a version that is gone.
        """
        number = self.linked(alias)
        if number is None:
            return None
        if number not in self.numbers():
            raise BundleError(
                f"{self.folder / alias} leads to version {number}, which is gone; promote another: "
                f"python scripts/models.py promote name={self.name} version=N"
            )
        return self.version(number)

    def history(self) -> list[history.Event]:
        """What was done with its versions, oldest first."""
        return history.events(self.history_path)

    def numbers(self) -> list[int]:
        """Of all versions, rising."""
        folder = self.folder / "versions"
        found = folder.iterdir() if folder.is_dir() else ()
        return sorted(int(path.name) for path in found if path.name.isdecimal())

    def linked(self, alias: Alias) -> int | None:
        """The number that an alias leads to, be it there or not; None without the alias.

        Raises:
            BundleError: it leads elsewhere.
        """
        try:
            place = (self.folder / alias).readlink()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise BundleError(
                f"{self.folder / alias} is no link to a version; move it away"
            ) from error
        if place.parent != Path("versions") or not place.name.isdecimal():
            raise BundleError(
                f"{self.folder / alias} leads to {place}, not to versions/NUMBER; switch it with "
                f"python scripts/models.py promote name={self.name} version=N"
            )
        return int(place.name)


def known_model(name: str | None) -> Model:
    """The model of that name, or the only one there is.

    Raises:
        ConfigError: there is no such model, or which is meant is not said.
    """
    known = model_names()
    if not known:
        raise ConfigError(
            f"no model is registered in {models_folder()}; register one: "
            "python scripts/models.py register bundle=model.pt"
        )
    if name is None and len(known) == 1:
        return Model(known[0])
    if name is None:
        raise ConfigError(f"which model? add name=NAME; there are {', '.join(known)}")
    if name not in known:
        raise ConfigError(
            f"name={name}: there is no such model{nearest(name, known)} in {models_folder()}; "
            f"known: {', '.join(known)}"
        )
    return Model(name)


def digest_of(path: Path) -> str:
    """Names a file's very content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
