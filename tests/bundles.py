"""Bundles without a training: one has counted what follows what, another knows nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from musicrec.interactions.catalogue import Catalogue
from musicrec.interactions.sequence import transitions
from musicrec.interactions.snapshot import Snapshot
from musicrec.interactions.split import cold_counts, leave_one_out
from musicrec.models.sasrec import SASRec
from musicrec.registry import bundle as bundles
from musicrec.registry.bundle import Bundle


def bundle_of(
    snapshot: Snapshot, *, is_good: bool = True, seed: int = 0, **protocol: Any
) -> Bundle:
    """A small model of a snapshot's tracks; a good one goes by the transitions of its training."""
    torch.manual_seed(seed)
    sequences, facts = snapshot.sequences, snapshot.facts
    split = leave_one_out(sequences)
    architecture = {
        "catalogue_size": facts.catalogue_size,
        "max_length": 6,
        "dim": 8,
        "blocks": 1,
        "heads": 2,
        "repeats": False,
        "transitions": 4 if is_good else 0,
    }
    model = SASRec(**architecture)
    model.remember(*map(torch.from_numpy, transitions(sequences, split.train)))
    if is_good:
        with torch.no_grad():
            model.transitions[0].use.bias[2] = 50.0  # logits for whatever followed once
    told = {
        "dataset": facts.dataset,
        "split": "leave_one_out",
        "split_settings": {},
        "seen": "keep",
        "users": len(split.test),
        "refit": False,
        **cold_counts(sequences, split),
        **protocol,
    }
    return bundles.new_bundle(
        model,
        snapshot.catalogue(),
        architecture=architecture,
        config={"seed": seed, "model": {"dim": 8}},
        metrics={"test/ndcg_10": 0.5, "val/ndcg_10": 0.5, "protocol": told},
        data_fingerprint=facts.fingerprint,
    )


def small_bundle(tracks: str = "abc", *, seed: int = 0, dataset: str = "mine") -> Bundle:
    """A bundle of no data at all, of tracks named by a letter each."""
    torch.manual_seed(seed)
    architecture = {
        "catalogue_size": len(tracks),
        "max_length": 5,
        "dim": 8,
        "blocks": 1,
        "heads": 2,
    }
    none = [None] * len(tracks)
    protocol = {
        "dataset": dataset,
        "split": "leave_one_out",
        "split_settings": {},
        "seen": "keep",
        "users": 1,
        "cold_items": 0,
        "cold_listeners": 0,
        "refit": False,
    }
    return bundles.new_bundle(
        SASRec(**architecture),
        Catalogue(list(tracks), none, none, torch.ones(len(tracks), dtype=torch.int64).numpy()),
        architecture=architecture,
        config={"seed": seed},
        metrics={"test/ndcg_10": 0.5, "protocol": protocol},
        data_fingerprint=f"f00d{seed}",
    )


def saved(bundle: Bundle, path: Path) -> Path:
    bundles.save(bundle, path)
    return path
