"""A bundle of any catalogue size that scores as a trained one does, without training.

Tracks belong to artists and artists to genres, and their vectors say so; listeners' histories stay
within a few genres. Repeats and transitions are on, with counts of those very histories. Nothing
is learnt, so what it recommends means nothing: only what it costs does.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from musicrec.interactions.catalogue import Catalogue
from musicrec.models.sasrec import SASRec
from musicrec.registry.bundle import Bundle, new_bundle

ARCHITECTURE = {
    "max_length": 50,
    "dim": 64,
    "blocks": 2,
    "heads": 2,
    "dropout": 0.2,
    "repeats": True,
    "transitions": 32,
    "transition_lags": 3,
}

TRACKS_PER_ARTIST, ARTISTS_PER_GENRE = 12, 60
GENRES_PER_LISTENER = 3


def artist_of(items: NDArray[np.int64]) -> NDArray[np.int64]:
    """The artist of each item, 0 to the number of artists - 1."""
    return (items - 1) // TRACKS_PER_ARTIST


def num_artists(catalogue_size: int) -> int:
    return -(-catalogue_size // TRACKS_PER_ARTIST)


def genre_of_artist(artists: NDArray[np.int64]) -> NDArray[np.int64]:
    return artists // ARTISTS_PER_GENRE


def histories(catalogue_size: int, listeners: int, plays: int, seed: int) -> list[NDArray]:
    """``plays`` items of each listener, oldest first: within a few genres, some again and again."""
    chance = np.random.default_rng(seed)
    per_genre = TRACKS_PER_ARTIST * ARTISTS_PER_GENRE
    genres = -(-catalogue_size // per_genre)
    found = []
    for _ in range(listeners):
        mine = chance.integers(0, genres, GENRES_PER_LISTENER)
        within = np.floor(per_genre * chance.random(plays) ** 2).astype(np.int64)
        items = 1 + chance.choice(mine, plays) * per_genre + within
        again = chance.random(plays) < 0.3
        items[again] = items[chance.integers(0, plays, int(again.sum()))]
        found.append(np.minimum(items, catalogue_size))
    return found


def model(catalogue_size: int, seed: int = 17) -> SASRec:
    """In evaluation mode."""
    torch.manual_seed(seed)
    made = SASRec(catalogue_size, **ARCHITECTURE).eval()
    chance = np.random.default_rng(seed)
    dim = ARCHITECTURE["dim"]
    artists = num_artists(catalogue_size)
    of_genre = chance.standard_normal((1 + artists // ARTISTS_PER_GENRE, dim), np.float32)
    of_artist = of_genre[genre_of_artist(np.arange(artists))]
    of_artist += 0.6 * chance.standard_normal(of_artist.shape, np.float32)
    vectors = of_artist[artist_of(np.arange(1, catalogue_size + 1))]
    vectors += 0.4 * chance.standard_normal(vectors.shape, np.float32)
    with torch.no_grad():
        made.item_embedding.weight[1:] = 0.02 * torch.from_numpy(vectors)
        made.repeats.by_lag.bias.fill_(0.2)
        for memory in made.transitions:
            memory.use.bias.copy_(torch.tensor([0.5, 0.2, 0.5]))
    plays = np.stack(histories(catalogue_size, min(20_000, catalogue_size), 50, seed))
    for lag in range(len(made.transitions)):
        before, after = plays[:, : -lag - 1], plays[:, lag + 1 :]
        made.remember(
            torch.from_numpy(before.reshape(-1)), torch.from_numpy(after.reshape(-1)), lag
        )
    return made


def bundle(catalogue_size: int, seed: int = 17) -> Bundle:
    """With titles and artists; ids are ``track-1`` to the number of tracks."""
    numbers = np.arange(1, catalogue_size + 1)
    artists = artist_of(numbers)
    catalogue = Catalogue(
        track_ids=[f"track-{number}" for number in numbers],
        titles=[f"Song {number}" for number in numbers],
        artists=[f"Artist {number}" for number in artists],
        play_counts=np.maximum(1, (1e6 / numbers**0.8)).astype(np.int64),
    )
    return new_bundle(
        model(catalogue_size, seed),
        catalogue,
        architecture={"catalogue_size": catalogue_size, **ARCHITECTURE},
        config={"dataset": "benchmark", "seed": seed},
        metrics={"protocol": {"seen": "keep", "split": "none: nothing was trained"}},
        data_fingerprint="benchmark",
    )
