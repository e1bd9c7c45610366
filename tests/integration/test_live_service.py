"""The service without HTTP, over real servers: what is written is seen, what hangs costs little."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from psycopg_pool import PoolTimeout
from sqlalchemy import text

from drills import bundle_of, socket_of
from live_service import put_row, run, through
from musicrec.database import engine as datasets
from musicrec.database.engine import Dataset
from musicrec.errors import DataError, ServingError
from musicrec.features.context import Context
from musicrec.features.online import OnlineStore
from musicrec.features.plan import ReadPlan
from musicrec.features.views import BY_NAME
from musicrec.serving.asking import Ask
from musicrec.serving.continued import NOBODY
from musicrec.serving.engine import Engine, Surroundings, made_engine
from musicrec.serving.events import Event
from musicrec.serving.moment import moment_of
from musicrec.serving.postgres import Postgres, _Attempt
from musicrec.serving.recommending import RecommendService
from plays import Play, store
from redis_proxy import Proxy

pytestmark = pytest.mark.slow

NOW = datetime.now(UTC)
HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)
TRACKS = {f"t{number}": {"artist": f"a{number % 9}"} for number in range(120)}
IDS = list(TRACKS)
#: To be answered, however busy the machine is.
PATIENT = {"budget_seconds": 10.0}
#: To be given up.
BUDGET = 0.03
#: What a busy machine may add to it.
SLACK = 0.25


@pytest.fixture(scope="module")
def filled(postgres) -> Iterator[Dataset]:
    """Ada's listening in Postgres; a track of it, and one other, the model does not know."""
    name = f"test_{uuid.uuid4().hex[:16]}"
    with datasets.open_dataset(name, create=True) as opened:
        history = [Play("ada", IDS[(3 * n) % 40], NOW - 3 * HOUR - n * HOUR) for n in range(30)]
        history.append(Play("ada", "unheard of", NOW - 2 * HOUR))
        store(opened, history, TRACKS | {"unheard of": {}, "later": {}})
        yield opened
    datasets.drop_dataset(name)


@pytest.fixture(scope="module")
def engine(filled, redis) -> Engine:
    """Of a model with a ranker; the features of tracks are in Redis."""
    popularity, audio = BY_NAME["track_popularity"], BY_NAME["track_audio_features"]
    for place, track in enumerate(IDS[:60]):
        plays = float(place % 7) if place else 99.0
        at = NOW - HOUR if place % 5 else NOW - timedelta(days=9)
        put_row(redis, filled.name, popularity, (track,), [plays, plays + 10, 1, float("nan")], at)
        energy = [place / 60] * len(audio.features)
        put_row(redis, filled.name, audio, (track,), energy, datetime(1970, 1, 2, tzinfo=UTC))
    pair = BY_NAME["user_track_interactions"]
    put_row(redis, filled.name, pair, ("t3", "ada"), [4, 12.5, 0.25, 1], NOW - HOUR)
    stats = BY_NAME["user_listening_stats"]
    put_row(redis, filled.name, stats, ("ada",), [31, 2, 14, 9, 80, 0], NOW - HOUR)
    return made_engine(bundle_of(IDS, ranked=True), Surroundings(filled, redis))


@pytest.fixture
def listener(filled) -> str:
    """Somebody new, with three plays in the running session."""
    user = f"user {uuid.uuid4().hex}"
    with filled.engine.begin() as connection:
        key = connection.execute(
            text("INSERT INTO users (user_id) VALUES (:user) RETURNING user_key"), {"user": user}
        ).scalar_one()
        for place, track in enumerate(("t10", "t11", "t12")):
            connection.execute(
                text(
                    "INSERT INTO interactions (user_key, occurred_at, track_key, tie, source)"
                    " SELECT :key, :at, track_key, 0, 'test' FROM tracks WHERE track_id = :track"
                ),
                {"key": key, "at": NOW - (10 - place) * MINUTE, "track": track},
            )
    return user


@pytest.fixture
def parts(filled, redis):
    return {"dataset": filled, "redis": redis}


def ids(answer) -> list[str]:
    return [track.track_id for track in answer.tracks]


def what(answer) -> set[str]:
    return {degraded.part for degraded in answer.degraded}


def answered(engine, ask: Ask, **settings):
    return run(engine, lambda service: service.recommend(ask), **settings)


def told(engine, event: Event, **settings):
    return run(engine, lambda service: service.record(event), **settings)


def test_an_answer_rests_on_everything_and_names_its_tracks(engine, parts):
    answer = answered(engine, Ask("ada", k=10), **parts, **PATIENT)
    assert answer.rung == "full"
    assert answer.degraded == ()
    assert answer.model_version == engine.version
    assert len(set(ids(answer))) == 10
    assert all(track.title == f"Title of {track.track_id}" for track in answer.tracks)
    assert all(track.reasons for track in answer.tracks)
    assert [*answer.stages] == ["history", "graph", "score", "features", "rank", "reasons"]


def test_a_listen_is_in_the_next_answer_of_another_worker(engine, parts, listener):
    assert told(engine, Event(listener, "t77", "listen"), **parts).is_new
    answer = answered(engine, Ask(listener, k=110), **parts, **PATIENT)
    (track,) = (track for track in answer.tracks if track.track_id == "t77")
    assert "repeat" in track.sources
    assert any(reason.startswith("you played it once") for reason in track.reasons)


def test_a_listen_changes_what_the_model_reads(engine, parts, listener):
    before = answered(engine, Ask(listener), **parts, **PATIENT)
    told(engine, Event(listener, "t50", "listen"), **parts)
    after = answered(engine, Ask(listener), **parts, **PATIENT)
    assert [t.score for t in before.tracks] != [t.score for t in after.tracks]


def test_what_was_skipped_in_the_session_is_no_candidate_for_the_rest_of_it(
    engine, parts, listener
):
    told(engine, Event(listener, "t11", "skip"), **parts)
    assert "t11" not in ids(answered(engine, Ask(listener, k=120), **parts, **PATIENT))
    later = Ask(listener, k=120, as_of=datetime.now(UTC) + HOUR)
    assert "t11" in ids(answered(engine, later, **parts, **PATIENT))


def test_the_newest_word_on_a_track_counts(engine, parts, listener):
    at = NOW - MINUTE
    told(engine, Event(listener, "t90", "like", at), **parts)
    answer = answered(engine, Ask(listener, k=110), **parts, **PATIENT)
    assert "you liked it" in next(t for t in answer.tracks if t.track_id == "t90").reasons
    told(engine, Event(listener, "t90", "dislike", at + timedelta(seconds=1)), **parts)
    assert "t90" not in ids(answered(engine, Ask(listener, k=120), **parts, **PATIENT))
    before = Ask(listener, k=60, as_of=at)
    answer = answered(engine, before, **parts, **PATIENT)
    assert not any("you liked it" in track.reasons for track in answer.tracks)


def test_an_event_sent_again_changes_nothing(filled, engine, parts, listener):
    event = Event(listener, "t80", "listen", NOW - MINUTE, 1000, "android")
    assert told(engine, event, **parts).is_new
    assert not told(engine, replace(event, ms_played=2000), **parts).is_new
    with filled.engine.connect() as connection:
        rows = connection.execute(
            text(
                "SELECT ms_played, skipped, device, source FROM interactions"
                " JOIN users USING (user_key) JOIN tracks USING (track_key)"
                " WHERE user_id = :user AND track_id = 't80'"
            ),
            {"user": listener},
        ).all()
    assert rows == [(1000, False, "android", "service")]


def test_a_listen_that_turns_out_to_be_a_skip_is_one(engine, parts, listener):
    listen = Event(listener, "t80", "listen", NOW - MINUTE)
    skip = replace(listen, kind="skip", ms_played=900)
    assert [told(engine, event, **parts).is_new for event in (listen, skip, skip, listen)] == [
        True,
        True,
        False,
        False,
    ]
    answer = answered(engine, Ask(listener, k=120), **parts, **PATIENT)
    assert "t80" not in ids(answer)


def test_an_event_sent_again_is_no_change_of_the_data(filled, engine, parts, listener):
    def changes() -> int:
        with filled.engine.connect() as connection:
            return connection.scalar(text("SELECT count(*) FROM data_changes"))

    event = Event(listener, "t80", "listen", NOW - MINUTE)
    told(engine, event, **parts)
    before = changes()
    told(engine, event, **parts)
    assert changes() == before


def test_events_that_wait_for_an_import_keep_nobody_else(filled, engine, parts, listener):
    lock = text("LOCK TABLE users, tracks, interactions IN SHARE ROW EXCLUSIVE MODE")
    waiting = text(
        "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'interactions'::regclass"
    )

    async def drill(service: RecommendService) -> None:
        events = [
            asyncio.create_task(service.record(Event(f"{listener} {n}", "t80", "listen")))
            for n in range(12)
        ]
        await asyncio.sleep(0.3)
        assert (await service.recommend(Ask(listener))).rung == "full"
        said = await asyncio.gather(*events, return_exceptions=True)
        assert {type(each) for each in said} == {ServingError}
        # Nobody waits for them any more, and neither do processes of the server.
        await asyncio.sleep(1.5)
        with filled.engine.connect() as connection:
            assert connection.scalar(waiting) == 0

    with filled.engine.begin() as importing:
        importing.execute(lock)
        run(engine, drill, **parts, budget_seconds=1.0)


def test_of_somebody_who_is_erased_no_interests_are_remembered(engine, parts):
    class Forgetting:
        forgotten: list[str] = []  # noqa: RUF012

        def remembered(self, user_id):
            return None

        def forget(self, user_id):
            self.forgotten.append(user_id)

    knowing = made_engine(engine.bundle, Surroundings(parts["dataset"], ranker=False))
    knowing.surveyed = replace(knowing.surveyed, interests=Forgetting())
    assert answered(knowing, Ask("was erased"), **parts, **PATIENT).rung == "popularity"
    assert Forgetting.forgotten == ["was erased"]


def test_work_that_was_given_up_before_it_had_a_connection_is_not_begun(filled):
    begun = []

    async def work(connection) -> None:
        begun.append(connection)

    async def drill() -> None:
        postgres = Postgres(filled)
        await postgres.open()
        await postgres._pool.wait(20)
        attempt = _Attempt(postgres._pool, time.monotonic() + 10)
        attempt.abandon()
        with pytest.raises(PoolTimeout):
            await attempt.run(work)
        assert postgres._pool.get_stats()["pool_available"]  # it was given back
        await postgres.close()

    asyncio.run(drill())
    assert not begun


def test_events_of_one_moment_keep_their_order(filled, engine, parts, listener):
    at = NOW - MINUTE

    async def tell_all(service: RecommendService) -> None:
        for track in ("t5", "t4", "t6"):
            await service.record(Event(listener, track, "listen", at))
        await asyncio.gather(
            *(service.record(Event(listener, f"t{n}", "skip", at)) for n in range(20, 30))
        )

    run(engine, tell_all, **parts)
    with filled.engine.connect() as connection:
        rows = connection.execute(
            text(
                "SELECT track_id, tie FROM interactions JOIN users USING (user_key)"
                " JOIN tracks USING (track_key) WHERE user_id = :user AND occurred_at = :at"
                " ORDER BY tie"
            ),
            {"user": listener, "at": at},
        ).all()
    assert [track for track, _ in rows[:3]] == ["t5", "t4", "t6"]
    assert [tie for _, tie in rows] == list(range(13))


def test_a_listener_comes_to_be_with_their_first_event(engine, parts):
    user = f"user {uuid.uuid4().hex}"
    told(engine, Event(user, "t1", "like"), **parts)
    told(engine, Event(user, "t2", "listen"), **parts)
    assert answered(engine, Ask(user), **parts, **PATIENT).rung == "full"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"track_id": "no such track"}, "track_id='no such track'"),
        ({"occurred_at": NOW + timedelta(days=2)}, "more than a day ahead"),
        ({"occurred_at": datetime(1969, 12, 31, tzinfo=UTC)}, "before 1970"),
        ({"ms_played": -1}, "ms_played"),
    ],
)
def test_an_event_that_cannot_be_is_refused_and_creates_nobody(
    filled, engine, parts, changes, said
):
    user = f"user {uuid.uuid4().hex}"
    with pytest.raises(DataError, match=said):
        told(engine, replace(Event(user, "t1", "listen"), **changes), **parts)
    with filled.engine.connect() as connection:
        query = text("SELECT count(*) FROM users WHERE user_id = :user")
        assert connection.execute(query, {"user": user}).scalar_one() == 0


def test_a_dataset_that_knows_no_times_takes_no_events(engine, parts, dataset):
    store(dataset, [Play("ada", "t1", NOW)], TRACKS)
    with dataset.engine.begin() as connection:
        connection.execute(text("UPDATE dataset_info SET timed = false"))
    with pytest.raises(DataError, match="order of plays only"):
        told(engine, Event("ada", "t1", "listen"), dataset=dataset)


def test_a_service_that_stands_in_the_past_dates_events_just_before(engine, parts, listener):
    recorded = told(engine, Event(listener, "t70", "listen"), **parts, as_of=NOW)
    assert recorded.occurred_at < NOW
    answer = answered(engine, Ask(listener, k=60, as_of=NOW), **parts, **PATIENT)
    assert any("you played it once" in reason for t in answer.tracks for reason in t.reasons)


def test_the_plays_of_after_the_moment_do_not_count(engine, parts, listener):
    past = Ask(listener, as_of=NOW - HOUR)
    assert answered(engine, past, **parts, **PATIENT).rung == "popularity"


def test_heard_tracks_are_dropped_on_demand_also_those_of_long_ago(filled, engine, parts):
    user = f"user {uuid.uuid4().hex}"
    with filled.engine.begin() as connection:
        key = connection.execute(
            text("INSERT INTO users (user_id) VALUES (:user) RETURNING user_key"), {"user": user}
        ).scalar_one()
        connection.execute(
            text(
                "INSERT INTO interactions (user_key, occurred_at, track_key, tie, source)"
                " SELECT :key, :at - n * interval '1 minute', track_key, 0, 'test'"
                " FROM generate_series(0, 1200) AS n JOIN tracks ON track_id ="
                " CASE WHEN n = 1200 THEN 't99' ELSE 't' || n % 30 END"
            ),
            {"key": key, "at": NOW - HOUR},
        )
    dropped = ids(answered(engine, Ask(user, k=120, seen="drop"), **parts, **PATIENT))
    assert not {"t99", "t0", "t29"} & {*dropped}
    assert len(dropped) == 120 - 31
    kept = ids(answered(engine, Ask(user, k=120, seen="keep"), **parts, **PATIENT))
    assert {"t99", "t0", "t29"} <= {*kept}


def test_what_is_excluded_is_not_in_the_answer_of_anybody(engine, parts):
    for user in ("ada", "nobody at all"):
        first = ids(answered(engine, Ask(user, k=5), **parts, **PATIENT))
        ask = Ask(user, k=115, exclude=(*first, "no such track"))
        assert not {*first} & {*ids(answered(engine, ask, **parts, **PATIENT))}


def test_a_listener_nobody_knows_gets_what_was_played_most_in_the_week(engine, parts):
    answer = answered(engine, Ask("nobody at all", k=3), **parts, **PATIENT)
    assert answer.rung == "popularity"
    assert answer.degraded == ()
    # t0 was played more, but in a week that is long over.
    assert ids(answer) == ["t6", "t13", "t27"]
    assert answer.tracks[0].reasons == ("16 listeners played it this week",)


def test_a_history_needs_no_listener_and_names_what_it_does_not_know(engine, parts):
    ask = Ask(None, history=("t1", "zz", "t2"), context=Context(session=["t2", "yy"]))
    answer = answered(engine, ask, **parts, **PATIENT)
    assert (answer.rung, answer.unknown) == ("full", ("zz", "yy"))


def test_without_a_dataset_histories_are_answered_and_listeners_are_not_known(engine):
    bare = made_engine(bundle_of(IDS), Surroundings())
    assert answered(bare, Ask(None, history=("t1",))).rung == "full"
    answer = answered(bare, Ask("ada"))
    assert (answer.rung, what(answer)) == ("popularity", {"postgres"})
    with pytest.raises(ServingError, match="dataset=NAME"):
        told(bare, Event("ada", "t1", "listen"))


def test_without_a_model_there_is_no_answer():
    with pytest.raises(ServingError, match="no model"):
        answered(None, Ask("ada"))


@pytest.mark.parametrize("as_of", [NOW, NOW - 2 * HOUR, NOW + timedelta(days=8)])
def test_live_features_are_to_the_bit_what_the_online_store_reads(filled, engine, redis, as_of):
    tracks = [*IDS[:70], "t3"]
    items, _ = engine.indices(tracks)
    session = ("t3", "t5")
    heard = np.array(engine.indices(session)[0])
    moment = moment_of(NOBODY, as_of, Context(8, 6, "android"), heard.tolist())
    context = Context(8, 6, "android", session)

    async def read(service: RecommendService):
        features = service._means.features
        assert features is not None
        surveyed = engine.surveyed.tracks
        return await features.read("ada", items, engine.bundle.catalogue, surveyed, moment, as_of)

    live = run(engine, read, dataset=filled, redis=redis, **PATIENT)
    with OnlineStore(ReadPlan(filled.name), redis, 10) as online:
        stored = online.read("ada", tracks, context, as_of)
    assert live.columns == stored.columns
    assert live.views == stored.views
    np.testing.assert_array_equal(live.values, stored.values)
    np.testing.assert_array_equal(live.states, stored.states)
    np.testing.assert_array_equal(live.ages, stored.ages)


def timed(service: RecommendService, ask: Ask):
    async def answer():
        start = time.perf_counter()
        given = await service.recommend(ask)
        return given, time.perf_counter() - start

    return answer()


@pytest.mark.parametrize("part", ["postgres", "redis"])
def test_a_part_that_hangs_costs_its_budget_at_most_and_soon_nothing(filled, engine, redis, part):
    where = socket_of(filled.address) if part == "postgres" else (redis.host, redis.port)
    rung = {"postgres": "no_postgres", "redis": "no_features"}[part]
    with Proxy(where) as door:
        settings = {"dataset": filled, "redis": redis}
        if part == "postgres":
            settings["dataset"] = through(filled, door.port)
        else:
            settings["redis"] = replace(redis, host="127.0.0.1", port=door.port)

        async def drill(service: RecommendService) -> None:
            await eventually_full(service)
            door.hold()
            for _ in range(4):
                answer, seconds = await timed(service, Ask("ada"))
                assert answer.rung == rung
                assert seconds < BUDGET + SLACK
            # Now it is left alone: nobody waits for it, and nothing new is hung on it.
            before = door.num_connections
            answers = [await timed(service, Ask("ada")) for _ in range(5)]
            assert sorted(seconds for _, seconds in answers)[2] < BUDGET
            assert service.parts()[part].startswith("resting: ")
            assert door.num_connections - before <= 3
            # What was given up has ended, although its server still hangs.
            assert service._postgres is not None
            assert not service._postgres._running
            door.release()
            await eventually_full(service)
            assert service.parts()[part] == "asked"

        run(engine, drill, budget_seconds=BUDGET, **settings)


async def eventually_full(service: RecommendService) -> None:
    deadline = time.monotonic() + 20
    while (await service.recommend(Ask("ada"))).rung != "full":
        assert time.monotonic() < deadline
        await asyncio.sleep(0.1)


def test_a_postgres_that_was_restarted_is_found_again(filled, engine):
    with Proxy(socket_of(filled.address)) as door:

        async def drill(service: RecommendService) -> None:
            before = await service.recommend(Ask("ada", as_of=NOW))
            door.cut()
            # Every connection that waits is dead; one that is not takes no more than a moment.
            again = await service.recommend(Ask("ada", as_of=NOW))
            assert again.degraded == (), again.degraded
            assert ids(again) == ids(before)
            door.down()
            away = await service.recommend(Ask("ada", as_of=NOW))
            assert (away.rung, what(away)) == ("no_postgres", {"postgres"})
            assert ids(away) == ids(before)
            with pytest.raises(ServingError, match="occurred_at="):
                await service.record(Event("ada", "t1", "listen"))
            door.up()
            await asyncio.sleep(1)
            await eventually_full(service)

        bare = made_engine(engine.bundle, Surroundings(filled, ranker=False))
        run(bare, drill, dataset=through(filled, door.port), budget_seconds=0.5)


def test_a_request_that_is_given_up_leaves_the_connections_to_others(filled, engine, parts):
    async def drill(service: RecommendService) -> None:
        for _ in range(30):
            task = asyncio.create_task(service.recommend(Ask("ada")))
            await asyncio.sleep(0.002)
            task.cancel()
        assert (await service.recommend(Ask("ada"))).rung == "full"

    run(engine, drill, **parts, **PATIENT)


def test_an_engine_opened_while_its_parts_are_away_takes_them_in_when_they_are_back(
    filled, engine, redis
):
    with Proxy(socket_of(filled.address)) as to_postgres, Proxy((redis.host, redis.port)) as door:
        to_postgres.down()
        door.down()
        around = Surroundings(
            through(filled, to_postgres.port), replace(redis, host="127.0.0.1", port=door.port)
        )
        fresh = made_engine(engine.bundle, around)
        assert {*fresh.surveyed.problems} == {"postgres", "features"}
        answer = answered(fresh, Ask("ada"), dataset=filled, redis=redis, **PATIENT)
        assert (answer.rung, what(answer)) == ("popularity", {"postgres"})
        to_postgres.up()
        door.up()
        fresh.survey()
        assert fresh.surveyed.problems == {}
        answer = answered(fresh, Ask("ada"), dataset=filled, redis=redis, **PATIENT)
        assert answer.rung == "full"


def test_what_a_survey_cannot_read_again_stays_as_it_was(filled, engine, redis):
    with Proxy((redis.host, redis.port)) as door:
        around = Surroundings(filled, replace(redis, host="127.0.0.1", port=door.port))
        fresh = made_engine(engine.bundle, around)
        held = fresh.surveyed.tracks
        assert held is not None
        door.down()
        fresh.survey(gently=True)
        assert fresh.surveyed.tracks is held
        assert {*fresh.surveyed.problems} == {"features"}
