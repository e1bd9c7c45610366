"""``model.pt``: one file that holds a trained model and everything needed to answer with it.

It is written by ``torch.save`` and holds tensors and plain containers only, so
``torch.load(path, weights_only=True)`` opens it: nothing is ever unpickled. A checksum over the
whole content tells a torn or edited file from a good one. The file is written beside its place
and renamed, so what stands there is always whole.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from musicrec.errors import BundleError
from musicrec.interactions.catalogue import Catalogue
from musicrec.models.sasrec import SASRec
from musicrec.registry.whole import whole_file

FORMAT_VERSION = 2

#: What is taken from the file as it is.
_RECORD = ("architecture", "config", "metrics", "data_fingerprint", "commit", "created_at")

Plain = dict[str, Any]


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
    """

    model: SASRec
    catalogue: Catalogue
    architecture: Plain
    config: Plain
    metrics: Plain
    data_fingerprint: str
    commit: str
    created_at: str

    @property
    def seen(self) -> str:
        """The protocol's ``seen``: whether recommending heard tracks was part of the judgement."""
        return str(self.metrics["protocol"]["seen"])


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
    }
    content["checksum"] = _checksum(content, path)
    with whole_file(path) as file:
        torch.save(content, file)


def load(path: Path) -> Bundle:
    """Open and check a bundle.

    Raises:
        BundleError: no such file, not a bundle, torn, edited, or of another format version.
    """
    content = _read(path)
    try:
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
    except (KeyError, TypeError, RuntimeError, ValueError) as error:
        raise BundleError(
            f"{path} has a good checksum but not the parts of a bundle ({error}); train it again"
        ) from error
    return Bundle(model=model.eval(), catalogue=catalogue, **record)


def _read(path: Path) -> Plain:
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
    if content["format_version"] != FORMAT_VERSION:
        raise BundleError(
            f"{path} has bundle format {content['format_version']}, this version reads "
            f"{FORMAT_VERSION}; train it again, or use the musicrec that wrote it "
            f"(commit {content.get('commit', 'unknown')})"
        )
    if content.pop("checksum", None) != _checksum(content, path):
        raise BundleError(f"{path} does not match its checksum; copy it again or train it again")
    return content


def _checksum(content: Plain, path: Path) -> str:
    """BLAKE2b over every tensor's bytes and everything else as canonical JSON."""
    digest = hashlib.blake2b(digest_size=16)

    def plain(value: object) -> object:
        if isinstance(value, Tensor):
            digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
            return [str(value.dtype), list(value.shape)]
        raise BundleError(f"{path}: {type(value).__name__} has no place in a bundle")

    digest.update(json.dumps(content, sort_keys=True, default=plain).encode())
    return digest.hexdigest()


def commit() -> str:
    """The commit of this checkout, ``-dirty`` if files differ; ``unknown`` outside one."""
    checkout = Path(__file__).parents[3]
    if not (checkout / ".git").exists():  # installed, maybe below someone else's repository
        return "unknown"
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
