"""How long an affinity takes, and whether it knows a listener's next tracks from others'.

    python benchmarks/affinity.py speed --tracks 200000 --candidates 500
    python benchmarks/affinity.py quality --listeners 300

``speed`` needs no database: invented tracks with tags, years and audio, and the largest graph there
can be (40 nodes of 12 tracks, out of 80). Milliseconds are CPU of the thread, where not said. It
also finds the neighbours of a graph in all tracks, and says why of the ten nearest.

``quality`` imports the synthetic world if it has not been, makes a ``local`` graph of each
listener's plays up to the last tenth, and asks for a track of that tenth, never played before,
against 50 others never played: the share of them that it ranks below (0.5 is chance). Three
more rows tell what is in it: ``shuffled`` takes another listener's graph, ``tag count`` adds up how
often the listener played each of a track's genres, and
``popularity`` ranks by plays. The others are drawn by plays, so being liked by all gives no lead.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
from sqlalchemy import text

from musicrec.database.engine import Dataset, dataset_names, open_dataset
from musicrec.graph.affinity import taste_of
from musicrec.graph.local import reply_to
from musicrec.graph.neighbours import Bearers
from musicrec.graph.reading import graph_of
from musicrec.graph.reasons import reason_for
from musicrec.graph.schema import Evidence, InterestGraph, Node
from musicrec.graph.summary import summarize
from musicrec.graph.traits import Traits, read_traits, traits_of
from musicrec.sources.loader import import_source
from musicrec.sources.synthetic import SyntheticWorld

MOMENT = datetime(2024, 6, 1, tzinfo=UTC)
AUDIO = ("danceability", "energy", "valence", "acousticness", "instrumentalness", "liveness")


def invented(num: int, rng: np.random.Generator) -> Traits:
    """Tracks of twenty to an artist, with five of 400 tags each."""
    tags = [f"style {number}" for number in range(400)]
    given = pa.ListArray.from_arrays(
        np.arange(0, 5 * num + 1, 5, dtype=np.int32),
        pa.array(tags).take(pa.array((rng.random(5 * num) ** 2 * 400).astype(np.int64))),
    )
    columns = {
        "track_id": [f"t{row}" for row in range(num)],
        "artist": [f"artist {row // 20}" for row in range(num)],
        "tags": given,
        "year": pa.array(rng.integers(1960, 2024, num), pa.int32()),
        **{name: pa.array(rng.random(num), pa.float32()) for name in AUDIO},
    }
    return traits_of(pa.table(columns))


def largest_graph(known: Traits, rng: np.random.Generator) -> InterestGraph:
    kinds = ["genre"] * 15 + ["artist"] * 15 + ["era"] * 4 + ["mood"] * 3 + ["theme"] * 3
    own = {"era": ["1970s", "1980s", "1990s", "2000s"], "mood": ["calm", "happy", "energetic"]}
    pool = rng.integers(0, len(known), 80)  # a summary shows fewer
    nodes = []
    for place, kind in enumerate(kinds):
        label = {"genre": f"style {place}", "artist": f"artist {place * 7}"}.get(kind)
        rows = rng.choice(pool, 12, replace=False)
        cited = tuple(
            Evidence(
                track_id=known.track_ids[row],
                title=f"title {row}",
                artist=f"artist {row // 20}",
                plays=int(rng.integers(1, 50)),
                last_played_at=MOMENT.isoformat(),
            )
            for row in rows
        )
        label = label or own.get(kind, ["party", "instrumental", "vocal", "nostalgia"])[place % 3]
        weight = float(rng.random())
        nodes.append(Node(kind=kind, label=label, weight=weight, term="long", evidence=cited))
    return InterestGraph(nodes=tuple(nodes), edges=())


def speed(num_tracks: int, num_candidates: int, rounds: int) -> None:
    rng = np.random.default_rng(3)
    start = time.perf_counter()
    known = invented(num_tracks, rng)
    print(f"{num_tracks:,} tracks, {len(known.columns):,} entries: {_since(start):.0f} ms, once")
    start = time.perf_counter()
    _ = known.row_of
    print(f"track id to row: {_since(start):.0f} ms, once")
    start = time.perf_counter()
    bearers = Bearers(known, rng.integers(0, 1000, num_tracks))
    print(f"trait to tracks: {_since(start):.0f} ms, once")
    making, asking, on_the_wall, finding, saying = [], [], [], [], []
    for _ in range(rounds):
        graph = largest_graph(known, rng)
        rows = rng.integers(0, num_tracks, num_candidates)
        began, start = time.perf_counter(), time.thread_time()
        taste = taste_of(graph, known, as_of=MOMENT + timedelta(days=3), at=MOMENT)
        made = time.thread_time()
        taste.affinity(rows)
        asking.append((time.thread_time() - made) * 1e3)
        making.append((made - start) * 1e3)
        on_the_wall.append(_since(began))
        start = time.thread_time()
        nearest = bearers.nearest(taste, 200)
        found = time.thread_time()
        for row in nearest[:10].tolist():
            reason_for(graph, taste, row, at=MOMENT)
        finding.append((found - start) * 1e3)
        saying.append((time.thread_time() - found) * 1e3)
    for what, spent in (
        ("taste of a graph, once a listener", making),
        (f"affinity of {num_candidates} candidates", asking),
        ("both", [a + b for a, b in zip(making, asking, strict=True)]),
        ("both, by the clock on the wall", on_the_wall),
        ("the 200 nearest of all tracks, once a listener", finding),
        ("reasons of ten tracks", saying),
    ):
        middle, high = np.percentile(spent, [50, 99])
        print(f"{what}: {middle:.2f} ms median, {high:.2f} ms 99th percentile of {rounds}")


def _since(start: float) -> float:
    return (time.perf_counter() - start) * 1e3


def quality(num_listeners: int, seed: int) -> None:
    if "synthetic" not in dataset_names():
        with open_dataset("synthetic", create=True) as dataset:
            import_source(dataset, SyntheticWorld())
    with open_dataset("synthetic") as dataset:
        known = read_traits(dataset)
        asked = list(questions(dataset, known, num_listeners, np.random.default_rng(seed)))
    with_graph = [question for question in asked if question[0].nodes]
    plays = popularity(known)
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(len(with_graph))
    scores: dict[str, list[float]] = {
        "affinity": [],
        "shuffled": [],
        "tag count": [],
        "popularity": [],
    }
    for (graph, rows, heard), other in zip(with_graph, shuffled, strict=True):
        scores["affinity"].append(below(taste_of(graph, known).affinity(rows)))
        scores["shuffled"].append(below(taste_of(with_graph[other][0], known).affinity(rows)))
        scores["tag count"].append(below(tag_count(known, heard, rows)))
        scores["popularity"].append(below(plays[rows]))
    print(f"{len(with_graph)} of {len(asked)} listeners have a graph; one track against 50")
    for name, values in scores.items():
        error = np.std(values) / len(values) ** 0.5
        print(f"{name:>10}: {np.mean(values):.3f} ± {1.96 * error:.3f}")


def below(values: np.ndarray) -> float:
    """The share of the others that the first is ranked above; a tie is half."""
    first, others = values[0], values[1:]
    return float((others < first).mean() + (others == first).mean() / 2)


def tag_count(known: Traits, heard: list[int], rows: np.ndarray) -> np.ndarray:
    genres = np.array([trait.kind == "genre" for trait in known.names])
    plays = np.zeros(len(genres))
    for row in heard:
        plays[known.columns[known.starts[row] : known.starts[row + 1]]] += 1
    plays *= genres
    return np.array(
        [plays[known.columns[known.starts[row] : known.starts[row + 1]]].sum() for row in rows]
    )


def popularity(known: Traits) -> np.ndarray:
    counts = np.zeros(len(known))
    with open_dataset("synthetic") as dataset, dataset.engine.connect() as connection:
        query = (
            "SELECT track_id, count(*) FROM interactions JOIN tracks USING (track_key) GROUP BY 1"
        )
        for track_id, plays in connection.execute(text(query)):
            counts[known.row_of[track_id]] = plays
    return counts


def questions(
    dataset: Dataset, known: Traits, num: int, rng: np.random.Generator
) -> Iterator[tuple[InterestGraph, np.ndarray, list[int]]]:
    """Of each listener's first nine tenths the graph and the rows, between them those to rank.

    The new track comes first, then 50 others.
    """
    chance = popularity(known)
    query = text(
        "SELECT t.track_id, i.occurred_at FROM interactions i JOIN tracks t USING (track_key) "
        "JOIN users u USING (user_key) WHERE u.user_id = :user ORDER BY occurred_at, tie"
    )
    with dataset.engine.connect() as connection:
        users = connection.execute(
            text(
                "SELECT user_id FROM users JOIN interactions USING (user_key) GROUP BY 1 "
                "HAVING count(*) >= 50 ORDER BY md5(user_id) LIMIT :num"
            ),
            {"num": num},
        ).scalars()
        for user in users.all():
            plays = connection.execute(query, {"user": user}).all()
            cut = len(plays) * 9 // 10
            heard = [known.row_of[track] for track, _ in plays[:cut]]
            new = [r for track, _ in plays[cut:] if (r := known.row_of[track]) not in heard]
            if not new:
                continue
            weights = chance.copy()
            weights[[known.row_of[track] for track, _ in plays]] = 0
            others = rng.choice(len(known), 50, replace=False, p=weights / weights.sum())
            graph = graph_of_listener(dataset, user, plays[cut].occurred_at)
            yield graph, np.array([new[0], *others]), heard


def graph_of_listener(dataset: Dataset, user_id: str, as_of: datetime) -> InterestGraph:
    summary = summarize(dataset, user_id, as_of=as_of)
    return graph_of(reply_to(summary).model_dump_json(), summary)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["speed", "quality"])
    parser.add_argument("--tracks", type=int, default=200_000)
    parser.add_argument("--candidates", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--listeners", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    if chosen.what == "speed":
        speed(chosen.tracks, chosen.candidates, chosen.rounds)
    else:
        quality(chosen.listeners, chosen.seed)


if __name__ == "__main__":
    main()
