"""Point-in-time features for training rows: ours beside Feast's own historical join.

    python benchmarks/training_join.py

Makes plays inside Postgres (dataset ``bench_training_join_14``, kept for the next run unless
``--drop``) and computes all five stored views at ``--days`` daily ends; two weeks of them have 1.2
million rows of listeners and tracks, and 0.6 million of the rest. Each contestant then runs in a
process of its own: importing and opening are not timed, all of the rest is, the loading of the
tables included. The rows are half plays, half another track at a play's time.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta

from sqlalchemy import text

from musicrec.database.engine import Dataset, drop_dataset, open_dataset
from musicrec.features.compute import compute, window_ends
from musicrec.features.views import STORED

LISTENERS, TRACKS, PLAYS_PER_DAY = 20_000, 20_000, 2_700
LAST = datetime(2024, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)

FILL = """
INSERT INTO interactions (user_key, occurred_at, track_key, tie, ms_played, skipped, source)
SELECT 1 + floor(:listeners * random() ^ 2)::int,
       :last + interval '1 day' - random() * :hours * interval '1 hour',
       1 + floor(:tracks * random() ^ 3)::int, 0, floor(240000 * random()), random() < .2, 'bench'
FROM generate_series(1, :plays)
ON CONFLICT DO NOTHING
"""


def fill(dataset: Dataset, days: int) -> None:
    """Plays of all days that the windows reach back to, skewed as listening is."""
    with dataset.engine.begin() as connection:
        if connection.scalar(text("SELECT count(*) FROM interactions")):
            return
        connection.execute(text("SELECT setseed(.4)"))
        connection.execute(
            text(
                "INSERT INTO users (user_key, user_id) SELECT n, 'user ' || n"
                " FROM generate_series(1, :n) n"
            ),
            {"n": LISTENERS},
        )
        connection.execute(
            text(
                "INSERT INTO tracks (track_key, track_id, artist, energy, tempo)"
                " SELECT n, 'track ' || n, 'artist ' || n / 9, random(), 60 + 120 * random()"
                " FROM generate_series(1, :n) n"
            ),
            {"n": TRACKS},
        )
        values = {"listeners": LISTENERS, "tracks": TRACKS, "last": LAST}
        values |= {"plays": PLAYS_PER_DAY * (days + 30), "hours": 24 * (days + 30)}
        connection.execute(text(FILL), values)
        connection.execute(text("UPDATE dataset_info SET timed = true"))
    with dataset.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM (ANALYZE) interactions, users, tracks"))


CONTESTANT = """
import json, resource, sys, time, warnings
warnings.filterwarnings("ignore")
import polars as pl
from musicrec.database.engine import open_dataset
from musicrec.database.redis_address import RedisAddress
from musicrec.features import history, repository
from musicrec.features.views import STORED

who, name, num_rows = sys.argv[1], sys.argv[2], int(sys.argv[3])

ROWS = '''
SELECT user_id, CASE WHEN hashint8(user_key + track_key) % 2 = 0 THEN track_id ELSE
       (SELECT track_id FROM tracks AS other WHERE other.track_key
        = 1 + abs(hashint8(i.track_key)::bigint) % 20000) END AS track_id, occurred_at
FROM interactions AS i JOIN users USING (user_key) JOIN tracks USING (track_key)
WHERE occurred_at > (SELECT min(window_end) FROM feature_computations
                     WHERE view = 'track_popularity')
ORDER BY hashtextextended(user_id || occurred_at, 0)
'''

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

with open_dataset(name) as dataset:
    with dataset.adbc() as connection, connection.cursor() as cursor:
        cursor.execute(ROWS)
        rows = pl.DataFrame(cursor.fetch_arrow_table())
    rows = pl.concat([rows] * (num_rows // len(rows) + 1)).head(num_rows).with_row_index("row")
    # Each a different moment: Feast would join equal ones once.
    rows = rows.with_columns(pl.col("occurred_at") + pl.duration(microseconds=pl.col("row")))
    if who == "feast":
        store = repository.open_store(dataset, RedisAddress("localhost", 1))
        repository.apply(store)
        frame = rows.rename({"occurred_at": "event_timestamp"}).to_pandas()
        names = [f"{v.name}:{f.name}" for v in STORED for f in v.features]
    before, started, cpu = peak(), time.perf_counter(), time.process_time()
    if who == "feast":
        found = store.get_historical_features(frame, names, full_feature_names=True).to_df()
        found = pl.DataFrame(found).sort("row")
    else:
        found = history.point_in_time(dataset, rows)
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    columns = [column for view in STORED for column in view.columns]
    values = found.select(pl.col(columns).cast(pl.Float32).fill_null(float("nan")))
    print(json.dumps({
        "rows": len(found), "seconds": seconds, "cpu": cpu, "before": before, "peak": peak(),
        "known": float(values.select(pl.all_horizontal(pl.all().is_nan()).not_().mean()).item()),
        "sums": [round(s, 1) for s in values.fill_nan(0).sum().row(0)],
    }))
"""


def run(dataset: Dataset, who: str, num_rows: int, timeout: float) -> dict[str, float] | None:
    """One contestant in a process of its own; None if it was not done in time."""
    mark = f"bench_{os.getpid()}"
    command = [sys.executable, "-c", CONTESTANT, who, dataset.name, str(num_rows)]
    environment = {**os.environ, "PGAPPNAME": mark}
    try:
        done = subprocess.run(
            command, env=environment, check=True, stdout=subprocess.PIPE, text=True, timeout=timeout
        )
    except subprocess.TimeoutExpired:
        # Its query would go on without it.
        with dataset.engine.begin() as connection:
            connection.execute(
                text(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE application_name = :mark AND pid <> pg_backend_pid()"
                ),
                {"mark": mark},
            )
        return None
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--days", type=int, default=14, help="window ends, one a day")
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--feast-rows", type=int, nargs="*", default=[10_000])
    parser.add_argument("--timeout", type=float, default=300, help="seconds for a contestant")
    parser.add_argument("--drop", action="store_true", help="delete the dataset afterwards")
    options = parser.parse_args()
    name = f"bench_training_join_{options.days}"
    with open_dataset(name, create=True) as dataset:
        fill(dataset, options.days)
        for view in STORED:
            started = time.perf_counter()
            done = compute(dataset, view, window_ends(LAST - (options.days - 1) * DAY, LAST))
            rows = sum(each.num_rows for each in done)
            new = sum(each.num_rows for each in done if each.is_new)
            seconds = time.perf_counter() - started
            with dataset.engine.begin() as connection:
                # The first reader of new rows marks them, and should not be a contestant.
                connection.execute(text(f"SELECT count(*) FROM {view.name}"))
            print(f"{view.name:26} {rows:>9,} rows, {new:>9,} computed now in {seconds:.1f} s")
        sums: dict[int, list[float]] = {}
        print(f"{'':8} {'rows':>8} {'seconds':>8} {'cpu s':>7} {'peak MB':>8} {'known':>6}")
        for who, each in (("ours", options.rows), ("feast", options.feast_rows)):
            for num_rows in each:
                found = run(dataset, who, num_rows, options.timeout)
                if found is None:
                    print(f"{who:8} {num_rows:>8,} not done after {options.timeout:.0f} s")
                    continue
                print(
                    f"{who:8} {found['rows']:>8,} {found['seconds']:>8.1f} {found['cpu']:>7.1f} "
                    f"{found['peak']:>8,.0f} {found['known']:>6.0%}"
                    f"   (before: {found['before']:,.0f} MB)",
                    flush=True,
                )
                expected = sums.setdefault(num_rows, found["sums"])
                if any(
                    abs(a - b) > 1 + 1e-4 * abs(a)
                    for a, b in zip(expected, found["sums"], strict=True)
                ):
                    print("  the sums of the columns differ from ours")
    if options.drop:
        drop_dataset(name)


if __name__ == "__main__":
    main()
