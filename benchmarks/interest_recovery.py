"""How much of a listener's true taste the ``local`` graph recovers, and what it finds in 30Music.

    python benchmarks/interest_recovery.py                      # synthetic worlds of two seeds
    MUSICREC_HOME=… python benchmarks/interest_recovery.py --dataset thirtymusic

In the synthetic world the truth is known: the styles a listener is at home in (three, or four where
taste drifts) and the artists they love (two of each style). Beside ``local`` stands a plain tag
count: the same tags and artists by plays, cut by the same rule. ``@3`` and ``@8`` ask only for the
order: the share of the truth among so many at the top. ``--dataset`` reads a dataset and has no
truth to compare with.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
from sqlalchemy import text

from musicrec.database.engine import Dataset, drop_dataset, open_dataset
from musicrec.graph.condense import condense
from musicrec.graph.digest import Summary
from musicrec.graph.history import histories
from musicrec.graph.local import LEAST, LEAST_OF_GREATEST, NUM_ARTISTS, NUM_GENRES, reply_to
from musicrec.graph.reading import graph_of
from musicrec.graph.schema import InterestGraph
from musicrec.graph.words import key
from musicrec.sources.loader import import_source
from musicrec.sources.synthetic import SyntheticWorld
from musicrec.sources.synthetic.listeners import LOVED_ARTIST, make_listener
from musicrec.sources.synthetic.styles import STYLES
from musicrec.sources.synthetic.tracks import make_tracks
from musicrec.sources.synthetic.world import FIRST_DAY

STYLE_KEYS = {key(style.name): style.name for style in STYLES}
FEWEST_PLAYS = 20


class Tally:
    """Found against true, summed over listeners."""

    def __init__(self, at: int) -> None:
        self.at, self.hits, self.found, self.true, self.top = at, 0, 0, 0, []

    def add(self, found: Sequence[str], true: set[str]) -> None:
        self.hits += len(set(found) & true)
        self.found += len(found)
        self.true += len(true)
        self.top.append(len(set(found[: self.at]) & true) / min(self.at, len(true)))

    def line(self, name: str) -> str:
        precision, recall = self.hits / max(1, self.found), self.hits / self.true
        f1 = 2 * precision * recall / max(1e-9, precision + recall)
        return (
            f"{name:34} precision {precision:.3f}  recall {recall:.3f}  F1 {f1:.3f}"
            f"  @{self.at} {np.mean(self.top):.3f}  found {self.found / len(self.top):.1f}"
            f" of {self.true / len(self.top):.1f}"
        )


def truth(world: SyntheticWorld) -> list[tuple[set[str], set[str]]]:
    """For each listener the names of home styles and loved artists."""
    rng = np.random.default_rng([world.seed, 1])
    tracks = make_tracks(rng, world.num_tracks, FIRST_DAY, world.days)
    names = tracks.metadata["artist"].to_pylist()
    artist = {index: names[row] for row, index in enumerate(tracks.artist.tolist())}
    found = []
    for listener in range(world.num_listeners):
        rng = np.random.default_rng([world.seed, 0, listener])
        traits = make_listener(rng, tracks, world.days)
        home = (traits.taste_at_first + traits.taste_at_last).nonzero()[0]
        loved = (traits.affinity == LOVED_ARTIST).nonzero()[0]
        found.append(
            ({STYLES[s].name for s in home}, {artist[a] for a in loved.tolist() if a in artist})
        )
    return found


def counted(weights: Counter[str], most: int) -> list[str]:
    """A plain count, cut as ``local`` cuts its weights."""
    total, greatest = sum(weights.values()), max(weights.values(), default=0)
    least = max(LEAST * total, LEAST_OF_GREATEST * greatest)
    ordered = sorted(weights, key=lambda name: (-weights[name], name))
    return [name for name in ordered if weights[name] >= least][:most]


def labels(graph: InterestGraph, kind: str) -> list[str]:
    return [node.label for node in graph.nodes if node.kind == kind]


def styles_of(names: Iterable[str]) -> list[str]:
    return [STYLE_KEYS[key(name)] for name in names if key(name) in STYLE_KEYS]


def same_style(rows: Iterable[int], summary: Summary, style: dict[str, str]) -> list[bool]:
    pairs = combinations([style.get(summary.rows[row].track_id, "") for row in rows], 2)
    return [one == other for one, other in pairs]


def recover(dataset: Dataset, world: SyntheticWorld) -> None:
    tallies = {
        (what, who): Tally(3 if what == "styles" else 8)
        for what in ("styles", "artists")
        for who in ("local", "plain count")
    }
    true = truth(world)
    keys, numbers = _listeners(dataset)
    pure: tuple[list[bool], list[bool]] = ([], [])
    for user, history, tracks in histories(dataset, keys, as_of=None, zone="UTC"):
        if len(history.track) < FEWEST_PLAYS:
            continue
        summary = condense(history, tracks, zone="UTC", max_tokens=3000)
        graph = graph_of(reply_to(summary).model_dump_json(), summary)
        home, loved = true[numbers[user]]
        heard = [tracks[track] for track in history.track.tolist()]
        tags = Counter(style for track in heard for style in styles_of(track.tags))
        artists = Counter(track.artist for track in heard)
        found = {
            ("styles", "local"): styles_of(labels(graph, "genre")),
            ("styles", "plain count"): counted(tags, NUM_GENRES),
            ("artists", "local"): labels(graph, "artist"),
            ("artists", "plain count"): counted(artists, NUM_ARTISTS),
        }
        for which, names in found.items():
            tallies[which].add(names, home if which[0] == "styles" else loved)
        style = {t.track_id: s[0] for t in tracks.values() if (s := styles_of(t.tags))}
        bare = {each: replace(track, tags=()) for each, track in tracks.items()}
        untagged = condense(history, bare, zone="UTC", max_tokens=3000)
        for group in untagged.groups:
            pure[0].extend(same_style(group.rows, untagged, style))
        pure[1].extend(same_style(range(len(untagged.rows)), untagged, style))
    for (what, who), tally in tallies.items():
        print(tally.line(f"seed {world.seed} {what:8} {who}"))
    print(
        f"seed {world.seed} without tags: two tracks of a group share their style in "
        f"{np.mean(pure[0]):.3f} of pairs, two rows of a summary in {np.mean(pure[1]):.3f}"
    )


def _listeners(dataset: Dataset) -> tuple[list[int], dict[int, int]]:
    with dataset.engine.connect() as connection:
        rows = connection.execute(text("SELECT user_key, user_id FROM users")).all()
    return [row[0] for row in rows], {row[0]: int(row[1].rpartition("-")[2]) for row in rows}


def describe(dataset: Dataset, sample: int) -> None:
    """What the graphs of a dataset hold."""
    with dataset.engine.connect() as connection:
        query = text("SELECT user_key FROM users ORDER BY hashint8(user_key), user_key LIMIT :n")
        keys = list(connection.scalars(query, {"n": sample}))
    started = time.perf_counter()
    kinds: Counter[str] = Counter()
    listeners: Counter[str] = Counter()
    cited, covered, users, plays = 0, 0.0, 0, 0
    for _, history, tracks in histories(dataset, keys, as_of=None, zone="UTC"):
        summary = condense(history, tracks, zone="UTC", max_tokens=3000)
        reply = reply_to(summary)
        users, plays = users + 1, plays + summary.plays
        if not reply.nodes:
            listeners["nothing at all"] += 1
            continue
        graph = graph_of(reply.model_dump_json(), summary)
        names = [
            f"{n.kind}: {'around …' if n.label.startswith('around') else n.label}"
            for n in graph.nodes
            if n.kind not in ("genre", "artist")
        ] + [n.kind for n in graph.nodes if n.kind in ("genre", "artist")]
        kinds.update(names)
        listeners.update(set(names))
        tracks_cited = {e.track_id: e.plays for node in graph.nodes for e in node.evidence}
        cited += len(tracks_cited)
        covered += sum(tracks_cited.values()) / summary.plays
    seconds = time.perf_counter() - started
    print(
        f"{dataset.name}: {users:,} listeners, {plays:,} plays, {users / seconds:,.0f} listeners/s"
    )
    print(f"tracks cited {cited / users:.1f} a listener, {covered / users:.2f} of their plays")
    for name, many in listeners.most_common():
        print(f"{name:32} {many / users:>6.1%} of listeners, {kinds[name] / many:.1f} each")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[7, 8])
    parser.add_argument("--listeners", type=int, default=1500)
    parser.add_argument("--days", type=int, default=182)
    parser.add_argument("--dataset", help="describe this one instead; it is only read")
    parser.add_argument("--sample", type=int, default=5000, help="listeners of --dataset")
    options = parser.parse_args()
    if options.dataset:
        with open_dataset(options.dataset) as dataset:
            describe(dataset, options.sample)
        return
    for seed in options.seeds:
        world = SyntheticWorld(seed=seed, num_listeners=options.listeners, days=options.days)
        name = f"bench_interest_recovery_{seed}"
        with open_dataset(name, create=True) as dataset:
            import_source(dataset, world)
            recover(dataset, world)
        drop_dataset(name)


if __name__ == "__main__":
    main()
