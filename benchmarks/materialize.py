"""What a row of features costs on its way from Postgres to Redis: ours beside Feast's.

    .venv/bin/python benchmarks/materialize.py --rows 1000000

One view, ``user_track_interactions``, is filled with invented rows of one end, a fifth of them with
nulls, in an embedded Postgres of its own. Then, each in a process of its own and into the same
embedded Redis, emptied before each,

    ours     ``materialize.write`` and the watermark: every row's stamp asked for, written, and read
             back and compared
    again    the same once more, over what is there
    feast    ``FeatureStore.materialize``, which is what ``feast materialize`` calls

Times are of that call alone, without imports. CPU is of the client's process, all its threads;
memory is its peak less what it held before the call. Redis' CPU is its own account. In the end
both must have left the same: Redis' digest of all it holds is compared.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from musicrec.database import embedded, embedded_redis
from musicrec.database.engine import Dataset, open_dataset
from musicrec.database.home import home
from musicrec.database.locks import is_held
from musicrec.database.redis_address import redis_address
from musicrec.features import repository, tables, upkeep
from musicrec.features.connection import Connection
from musicrec.features.materialize import write
from musicrec.features.resp import encoded
from musicrec.features.views import BY_NAME

VIEW = BY_NAME["user_track_interactions"]
END = datetime(2024, 6, 1, tzinfo=UTC)
NAME = "benchmark"
FILL = """
INSERT INTO user_track_interactions
SELECT %s, 'listener-' || lpad((i / 20)::text, 6, '0'),
       'syn-' || lpad((i::bigint * 7919 %% 100000)::text, 6, '0') || '-' || (i %% 20),
       1 + i %% 30,
       CASE WHEN i %% 5 > 0 THEN random() * 200 END,
       CASE WHEN i %% 5 > 0 THEN random() END,
       random() * 30
FROM generate_series(0, %s - 1) AS i
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--who", nargs="+", choices=tuple(WAYS), default=["ours", "again", "feast"])
    parser.add_argument("--only", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        print(json.dumps(measured(WAYS[options.only])))
        return
    with tempfile.TemporaryDirectory(prefix="materialize-") as folder:
        # Servers of its own, whatever the environment names: Redis is emptied.
        for name in [name for name in os.environ if name.startswith(("DATABASE_URL", "FEAST_"))]:
            del os.environ[name]
        os.environ["MUSICREC_HOME"] = str(Path(folder, "home"))
        with open_dataset(NAME, create=True) as dataset:
            fill(dataset, options.rows)
            upkeep.prepared(dataset, redis_address())
            compare(options.who, options.rows)
        stop_servers()


def fill(dataset: Dataset, rows: int) -> None:
    with tables.psycopg_connection(dataset, "fill the table") as connection:
        tables.make(connection, NAME, VIEW)
        connection.execute(f"TRUNCATE {VIEW.name}")
        connection.execute(FILL, (END, rows))
        connection.commit()
        connection.autocommit = True
        connection.execute(f"VACUUM ANALYZE {VIEW.name}")


def compare(who: list[str], rows: int) -> None:
    print(f"{rows:,} rows of {VIEW.name}")
    print(f"{'':8} {'CPU µs/row':>11} {'Redis µs/row':>13} {'seconds':>8} {'peak MB':>8}")
    digests = {}
    for name in who:
        if name != "again":
            asked(b"FLUSHALL")
        before = redis_seconds()
        child = [sys.executable, __file__, "--only", name]
        found = json.loads(subprocess.run(child, check=True, stdout=subprocess.PIPE).stdout)
        redis = redis_seconds() - before
        digests[name] = asked(b"DEBUG", b"DIGEST")
        print(
            f"{name:8} {found['cpu'] / rows * 1e6:11.2f} {redis / rows * 1e6:13.2f} "
            f"{found['seconds']:8.1f} {found['peak_mb']:8.0f}"
        )
    alike = "the same bytes" if len(set(digests.values())) == 1 else f"DIFFERENT: {digests}"
    print(f"left in Redis: {alike}")


def stop_servers() -> None:
    embedded.leave_server()
    embedded_redis.leave_server()
    while any(is_held(home() / kind / "keeper.lock") for kind in ("postgres", "redis")):
        time.sleep(0.1)


def measured(way: Callable[[Dataset], Callable[[], None]]) -> dict[str, float]:
    with open_dataset(NAME) as dataset:
        work = way(dataset)
        held, cpu, began = peak_mb(), time.process_time(), time.monotonic()
        sys.stdout = sys.stderr  # Feast draws a bar
        work()
        sys.stdout = sys.__stdout__
        return {
            "seconds": time.monotonic() - began,
            "cpu": time.process_time() - cpu,
            "peak_mb": peak_mb() - held,
        }


def ours(dataset: Dataset) -> Callable[[], None]:
    redis = redis_address()
    store = repository.open_store(dataset, redis)

    def work() -> None:
        write(dataset, VIEW, END, redis)
        repository.record_materialized(store, VIEW.name, END - VIEW.ttl, END)

    return work


def feast(dataset: Dataset) -> Callable[[], None]:
    warnings.filterwarnings("ignore")
    store = repository.open_store(dataset, redis_address())
    return lambda: store.materialize(END - VIEW.ttl, END, [VIEW.name])


WAYS = {"ours": ours, "again": ours, "feast": feast}


def asked(*words: bytes) -> bytes:
    with Connection(redis_address()) as redis:
        return redis.ask(encoded(*words), 1)[0]


def redis_seconds() -> float:
    """What Redis has spent so far, its own and the system's for it."""
    said = dict(
        line.split(":", 1) for line in asked(b"INFO", b"cpu").decode().split() if ":" in line
    )
    return float(said["used_cpu_user"]) + float(said["used_cpu_sys"])


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
