"""``model.pt``: one file that holds a trained model and everything needed to answer with it.

It is written by ``torch.save`` and holds tensors and plain containers only, so
``torch.load(path, weights_only=True)`` opens it: nothing is ever unpickled. A checksum over the
whole content tells a torn or edited file from a good one, and names the model: ``version``. The
file is written beside its place and renamed, so what stands there is always whole.

Formats: 2 has no ranker, and a memory of transitions of lag 0 alone; 3 may have a ranker
(``TrainedRanker``). Both are read, 3 is written.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from musicrec.errors import BundleError
from musicrec.interactions.catalogue import Catalogue
from musicrec.models.sasrec import SASRec
from musicrec.registry.whole import whole_file

FORMAT_VERSION = 3
_READ_VERSIONS = (2, 3)

#: Hexadecimal digits of the checksum that name a model.
_VERSION_DIGITS = 12

#: What is taken from the file as it is.
_RECORD = ("architecture", "config", "metrics", "data_fingerprint", "commit", "created_at")

Plain = dict[str, Any]


@dataclass(frozen=True)
class TrainedRanker:
    """The second stage as ``scripts/train_ranker.py`` leaves it.

    Attributes:
        text: LightGBM's own text form of the trees.
        columns: the names of the features they read, in order.
        base: what SASRec's score is multiplied with before the trees' is added.
        plays: ``(catalogue_size,)`` int64 plays of each item that the trees know of: those of the
            training prefix, so that no target is among them.
        metrics: what it reached beside SASRec alone, with its protocol.
        is_active: whether it won on validation, and so is used unless somebody says otherwise.
    """

    text: str = field(repr=False)
    columns: tuple[str, ...] = field(repr=False)
    base: float
    plays: NDArray[np.int64] = field(repr=False)
    metrics: Plain = field(repr=False)
    is_active: bool


@dataclass(frozen=True)
class Bundle:
    """A trained model with its vocabulary and its record.

    Attributes:
        model: in evaluation mode, on the CPU.
        catalogue: the vocabulary in index order.
        architecture: the model's constructor arguments.
        config: the run's resolved configuration, without anything secret.
        metrics: as ``metrics.json``, protocol included.
        data_fingerprint: of the interactions it was trained on.
        commit: of the code, or ``unknown`` outside a checkout.
        created_at: ISO 8601, UTC.
        ranker: the second stage; None where none was trained.
    """

    model: SASRec
    catalogue: Catalogue
    architecture: Plain
    config: Plain
    metrics: Plain
    data_fingerprint: str
    commit: str
    created_at: str
    ranker: TrainedRanker | None = None

    @property
    def seen(self) -> str:
        """The protocol's ``seen``: whether recommending heard tracks was part of the judgement."""
        return str(self.metrics["protocol"]["seen"])

    @cached_property
    def version(self) -> str:
        """Names this very content: the same for the same file, another for any other.

        Free of a bundle that was read from a file; else all of it is gone through once.
        """
        return _checksum(_content(self), Path("a bundle"))[:_VERSION_DIGITS]


def new_bundle(
    model: SASRec,
    catalogue: Catalogue,
    *,
    architecture: Plain,
    config: Plain,
    metrics: Plain,
    data_fingerprint: str,
) -> Bundle:
    """A bundle of what a run has just made, stamped with commit and time."""
    return Bundle(
        model=model.eval().cpu(),
        catalogue=catalogue,
        architecture=architecture,
        config=config,
        metrics=metrics,
        data_fingerprint=data_fingerprint,
        commit=commit(),
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def save(bundle: Bundle, path: Path) -> None:
    """Write ``path`` whole or not at all."""
    content = _content(bundle)
    content["checksum"] = _checksum(content, path)
    with whole_file(path) as file:
        torch.save(content, file)


def _content(bundle: Bundle) -> Plain:
    """What the file holds, but for the checksum."""
    content: Plain = {
        "format_version": FORMAT_VERSION,
        "weights": dict(bundle.model.state_dict()),
        "architecture": bundle.architecture,
        "vocabulary": {
            "track_ids": list(bundle.catalogue.track_ids),
            "titles": list(bundle.catalogue.titles),
            "artists": list(bundle.catalogue.artists),
            "play_counts": torch.from_numpy(np.array(bundle.catalogue.play_counts)),
        },
        "config": bundle.config,
        "metrics": bundle.metrics,
        "data_fingerprint": bundle.data_fingerprint,
        "commit": bundle.commit,
        "created_at": bundle.created_at,
        "ranker": None,
    }
    if (ranker := bundle.ranker) is not None:
        content["ranker"] = {
            "text": ranker.text,
            "columns": list(ranker.columns),
            "base": ranker.base,
            "plays": torch.from_numpy(np.array(ranker.plays)),
            "metrics": ranker.metrics,
            "is_active": ranker.is_active,
        }
    return content


def load(path: Path) -> Bundle:
    """Open and check a bundle.

    Raises:
        BundleError: no such file, not a bundle, torn, edited, or of another format version.
    """
    content, checksum = _read(path)
    try:
        if content["format_version"] == 2:
            _bring_up_to_date(content)
        model = SASRec(**content["architecture"])
        model.load_state_dict(content["weights"])
        vocabulary = content["vocabulary"]
        catalogue = Catalogue(
            track_ids=vocabulary["track_ids"],
            titles=vocabulary["titles"],
            artists=vocabulary["artists"],
            play_counts=vocabulary["play_counts"].numpy(),
        )
        record = {key: content[key] for key in _RECORD}
        ranker = _ranker(content.get("ranker"), len(catalogue))
    except (KeyError, TypeError, RuntimeError, ValueError) as error:
        why = " ".join(str(error).split())  # torch's goes on for lines
        raise BundleError(
            f"{path} has a good checksum but not the parts of a bundle ({why}); train it again"
        ) from error
    bundle = Bundle(model=model.eval(), catalogue=catalogue, ranker=ranker, **record)
    vars(bundle)["version"] = checksum[:_VERSION_DIGITS]
    return bundle


def _bring_up_to_date(content: Plain) -> None:
    """From format 2, whose model had one memory of transitions at most."""
    content["architecture"].setdefault("transition_lags", 1)
    content["weights"] = {
        name.replace("transitions.", "transitions.0.", 1): value
        for name, value in content["weights"].items()
    }


def _ranker(content: Plain | None, catalogue_size: int) -> TrainedRanker | None:
    if content is None:
        return None
    plays = content["plays"].numpy()
    if plays.shape != (catalogue_size,):
        raise ValueError(f"a ranker of {len(plays)} tracks for a model of {catalogue_size}")
    return TrainedRanker(**content | {"columns": tuple(content["columns"]), "plays": plays})


def _read(path: Path) -> tuple[Plain, str]:
    """What the file holds, and its checksum."""
    if not path.is_file():
        raise BundleError(
            f"no bundle at {path} (looked in {path.parent.absolute()}); make one with: make train"
        )
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises anything from RuntimeError to UnpicklingError here
        raise BundleError(
            f"{path} is torn or no bundle ({type(error).__name__} while opening it); "
            "copy it again or train it again"
        ) from error
    if not isinstance(content, dict) or "format_version" not in content:
        raise BundleError(f"{path} is a torch file but no musicrec bundle; make one: make train")
    if content["format_version"] not in _READ_VERSIONS:
        raise BundleError(
            f"{path} has bundle format {content['format_version']}, this version reads "
            f"{' and '.join(map(str, _READ_VERSIONS))}; train it again, or use the musicrec that "
            f"wrote it (commit {content.get('commit', 'unknown')})"
        )
    checksum = _checksum({key: content[key] for key in content if key != "checksum"}, path)
    if content.get("checksum") != checksum:
        raise BundleError(f"{path} does not match its checksum; copy it again or train it again")
    return content, checksum


def _checksum(content: Plain, path: Path) -> str:
    """BLAKE2b over every tensor's bytes and everything else as canonical JSON."""
    digest = hashlib.blake2b(digest_size=16)

    def plain(value: object) -> object:
        if isinstance(value, Tensor):
            digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
            return [str(value.dtype), list(value.shape)]
        raise BundleError(f"{path}: {type(value).__name__} has no place in a bundle")

    # Tensors come first, as ``plain`` meets them; so the text waits.
    for text in [*_canonical(content, plain)]:
        digest.update(text.encode())
    return digest.hexdigest()


#: Elements of a list that become text at once.
_PIECE = 10_000


def _canonical(value: object, plain: Callable[[object], object]) -> Iterator[str]:
    """``json.dumps(value, sort_keys=True)`` in pieces.

    One call for the names of a million tracks lets no other thread run for a second, and a service
    opens a bundle while it answers.
    """
    if isinstance(value, dict):
        opening = "{"
        for key in sorted(value):
            yield f"{opening}{json.dumps(key)}: "
            yield from _canonical(value[key], plain)
            opening = ", "
        yield "}" if value else "{}"
    elif isinstance(value, list) and len(value) > _PIECE:
        opening = "["
        for start in range(0, len(value), _PIECE):
            piece = json.dumps(value[start : start + _PIECE], sort_keys=True, default=plain)
            yield opening + piece[1:-1]
            opening = ", "
        yield "]"
    else:
        yield json.dumps(value, sort_keys=True, default=plain)


def commit() -> str:
    """The commit of this checkout, ``-dirty`` if files differ.

    Outside of one it is what ``MUSICREC_COMMIT`` says, as an image does, or ``unknown``.
    """
    checkout = Path(__file__).parents[3]
    if not (checkout / ".git").exists():  # installed, maybe below someone else's repository
        return os.environ.get("MUSICREC_COMMIT") or "unknown"
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],  # noqa: S607
            cwd=checkout,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return described.stdout.strip()
