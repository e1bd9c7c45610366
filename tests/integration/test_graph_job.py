"""Graphs for many listeners, against a server that speaks the providers' protocols."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections import Counter
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

import commands
import listeners
from llm_server import KEY, Server
from musicrec.cli.compose import compose
from musicrec.cli.generate_graph import generate_graph
from musicrec.database.engine import Dataset
from musicrec.errors import ConfigError
from musicrec.graph import batches, batching, calls, claims, desk, job, prompt, verdict
from musicrec.graph.asking import Patience
from musicrec.graph.batching import Plan
from musicrec.graph.calls import Round
from musicrec.graph.estimate import Offer, estimate
from musicrec.graph.provider import Answer, Ask, Price
from musicrec.graph.providers import PRICES, provider_of
from musicrec.graph.retention import drop_replies
from musicrec.graph.settings import Settings
from musicrec.graph.summary import summaries
from musicrec.graph.tally import Tally
from musicrec.graph.writing import connection_to

pytestmark = pytest.mark.slow

QUICK = Settings(patience=Patience(timeout_seconds=1.0, deadline_seconds=20.0))


@pytest.fixture
def server(llm_server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    monkeypatch.setattr("musicrec.graph.pacing.PAUSE_SECONDS", 0.05)
    return llm_server


def become(server: Server, **values: Any) -> None:
    server.become(replace(server.script, **values))


def asked(
    dataset: Dataset,
    server: Server,
    settings: Settings = QUICK,
    *,
    plan: Plan | None = None,
    name: str = "anthropic",
    users: list[int] | None = None,
    model: str | None = None,
    price: Price | None = None,
) -> Tally:
    """A run of all listeners in this process; by batches where there is a plan."""
    url = server.url if name == "anthropic" else server.openai_url

    async def run() -> Tally:
        provider = provider_of(name, model, None if name == "local" else url, price=price)
        try:
            if plan is not None:
                return await batching.run(dataset, provider, users, settings, plan)
            return await job.run(dataset, provider, users, settings)
        finally:
            await provider.close()

    return asyncio.run(run())


def rows(dataset: Dataset, query: str) -> list[Any]:
    with dataset.engine.connect() as connection:
        return list(connection.execute(text(query)).all())


def one(dataset: Dataset, query: str) -> Any:
    (row,) = rows(dataset, query)
    return row[0]


def next_faults(server: Server, *faults: str) -> None:
    server.next_faults.extend(faults)


ONE_AT_A_TIME = replace(QUICK, max_in_flight=1)


def test_everybody_gets_a_graph_and_a_second_run_calls_nobody(
    dataset: Dataset, server: Server
) -> None:
    become(server, forbidden=tuple(listeners.store(dataset, 30)))
    assert asked(dataset, server).done == 30
    again = asked(dataset, server)
    assert (again.unchanged, again.calls) == (30, 0)
    assert len(server.calls) == 30
    assert server.problems == []  # no user id among them
    assert one(dataset, "SELECT count(*) FROM user_interest_graph WHERE is_current") == 30


def test_nodes_and_edges_are_those_of_the_graph(dataset: Dataset, server: Server) -> None:
    listeners.store(dataset, 3)
    asked(dataset, server)
    stored = rows(dataset, "SELECT graph_id, graph FROM user_interest_graph")
    nodes = sum(len(graph["nodes"]) for _, graph in stored)
    edges = sum(len(graph["edges"]) for _, graph in stored)
    assert one(dataset, "SELECT count(*) FROM interest_nodes") == nodes > 0
    assert one(dataset, "SELECT count(*) FROM interest_edges") == edges > 0


def test_a_longer_history_makes_a_new_version_and_closes_the_one_before(
    dataset: Dataset, server: Server
) -> None:
    listeners.store(dataset, 2)
    asked(dataset, server)
    with dataset.engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO interactions (user_key, occurred_at, track_key, tie, source) "
                "SELECT min(user_key), '2024-05-01', 7, 0, 'test' FROM users"
            )
        )
    tally = asked(dataset, server)
    assert (tally.done, tally.unchanged) == (1, 1)
    versions = rows(
        dataset,
        "SELECT version, is_current, valid_from, valid_to FROM user_interest_graph"
        " WHERE user_key = 100 ORDER BY version",
    )
    assert [(v.version, v.is_current) for v in versions] == [(1, False), (2, True)]
    assert versions[0].valid_to == versions[1].valid_from
    assert versions[1].valid_to is None


def test_a_reply_that_cites_what_was_never_sent_is_mended_in_a_second_round(
    dataset: Dataset, server: Server
) -> None:
    listeners.store(dataset, 1)
    next_faults(server, "wrong_ids")
    tally = asked(dataset, server)
    assert (tally.done, tally.calls, tally.repairs) == (1, 2, 1)
    assert "e99999" in one(dataset, "SELECT problem FROM graph_calls WHERE round = 'first'")
    tokens = one(dataset, "SELECT sum(input_tokens) FROM graph_calls")
    assert one(dataset, "SELECT input_tokens FROM user_interest_graph") == tokens


def test_one_who_is_answered_wrongly_twice_is_quarantined_and_not_asked_for_again(
    dataset: Dataset, server: Server
) -> None:
    listeners.store(dataset, 3)
    next_faults(server, "broken_reply", "wrong_ids")
    assert asked(dataset, server, users=[100]).quarantined == 1
    assert asked(dataset, server).done == 2
    assert one(dataset, "SELECT count(*) FROM graph_tasks WHERE reason LIKE '%e99999%'") == 1
    assert asked(dataset, server).quarantined_before == 1
    assert len(server.calls) == 4
    assert asked(dataset, server, replace(QUICK, retry_quarantined=True)).done == 1


def test_a_refusal_ends_one_listener_and_not_the_run(dataset: Dataset, server: Server) -> None:
    listeners.store(dataset, 3)
    next_faults(server, "refused")
    tally = asked(dataset, server, ONE_AT_A_TIME)
    assert (tally.done, tally.quarantined, tally.repairs) == (2, 1, 0)


@pytest.mark.parametrize("fault", ["spend_limit", "unauthorized"])
def test_what_only_a_person_can_mend_stops_the_run_and_is_not_hammered(
    dataset: Dataset, server: Server, fault: str
) -> None:
    listeners.store(dataset, 20)
    next_faults(server, *["none"] * 3, fault)
    tally = asked(dataset, server, ONE_AT_A_TIME)
    assert tally.stopped is not None
    assert len(server.calls) == 4
    assert tally.untouched == 17
    assert asked(dataset, server).done == 17


def test_failures_that_pass_are_tried_again(dataset: Dataset, server: Server) -> None:
    listeners.store(dataset, 6)
    become(server, retry_after=0.05)
    next_faults(server, "rate_limit", "overloaded", "server_error", "reset", "broken_body")
    tally = asked(dataset, server)
    assert (tally.done, tally.retries) == (6, 5)
    assert one(dataset, "SELECT count(*) FROM graph_calls WHERE state = 'failed'") == 5
    assert one(dataset, "SELECT count(*) FROM graph_calls WHERE may_be_billed") == 2


def test_a_provider_that_is_down_is_left_alone(dataset: Dataset, server: Server) -> None:
    listeners.store(dataset, 40)
    become(server, fault_share=1.0, faults=("server_error",))
    patience = replace(QUICK.patience, max_failures=5)
    tally = asked(dataset, server, replace(ONE_AT_A_TIME, patience=patience))
    assert tally.stopped is not None
    assert "all failed" in tally.stopped
    assert len(server.calls) == 5


@pytest.mark.parametrize("plan", [None, Plan(size=10, poll_seconds=0.05)])
def test_the_budget_is_not_passed_and_a_next_run_goes_on(
    dataset: Dataset, server: Server, plan: Plan | None
) -> None:
    listeners.store(dataset, 25)
    most = Decimal("0.01")
    tally = asked(dataset, server, replace(QUICK, max_cost_usd=most), plan=plan)
    assert tally.stopped is not None
    assert "max_cost_usd=0.01" in tally.stopped
    assert 0 < tally.done < 25
    assert one(dataset, "SELECT sum(cost_usd) FROM graph_calls") <= most
    assert tally.spent <= most * 10**9
    assert asked(dataset, server, plan=plan).done == 25 - tally.done


def test_a_budget_without_a_known_price_is_refused(dataset: Dataset, server: Server) -> None:
    settings = replace(QUICK, max_cost_usd=Decimal(1))
    with pytest.raises(ConfigError, match=r"price of model 'other'.*llm\.price"):
        asked(dataset, server, settings, model="other")


def test_a_stored_reply_that_nobody_has_read_is_read_and_not_asked_for_again(
    dataset: Dataset, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    listeners.store(dataset, 4)

    def broken(*_: object) -> None:
        raise RuntimeError("the process ends here")

    with monkeypatch.context() as patch:
        patch.setattr(verdict, "read", broken)
        first = asked(dataset, server)
    assert (first.failed, type(first.bug)) == (4, RuntimeError)
    second = asked(dataset, server)
    assert (second.done, second.read_again, second.calls) == (4, 4, 0)


def test_two_runs_at_once_ask_for_nobody_twice(dataset: Dataset, server: Server) -> None:
    listeners.store(dataset, 40)
    become(server, latency_seconds=0.02)
    small = replace(QUICK, batch_size=5, max_in_flight=4)

    async def both() -> list[Tally]:
        providers = [provider_of("anthropic", None, server.url) for _ in range(2)]
        runs = (job.run(dataset, provider, None, small) for provider in providers)
        return await asyncio.gather(*runs)

    done = [tally.done for tally in asyncio.run(both())]
    assert sum(done) == 40
    assert len(server.calls) == 40


def test_nothing_of_one_who_is_forgotten_meanwhile_is_stored(
    dataset: Dataset, server: Server
) -> None:
    listeners.store(dataset, 1)
    become(server, latency_seconds=0.3)

    async def run() -> Tally:
        running = asyncio.create_task(
            job.run(dataset, provider_of("anthropic", None, server.url), None, QUICK)
        )
        while not server.calls:
            await asyncio.sleep(0.01)
        with dataset.engine.begin() as connection:
            for table in ("graph_calls", "graph_tasks", "users"):
                connection.execute(text(f"DELETE FROM {table}"))
        return await running

    assert asyncio.run(run()).done == 0
    assert one(dataset, "SELECT count(*) FROM user_interest_graph") == 0
    assert one(dataset, "SELECT count(*) FROM graph_calls") == 0


def test_one_who_was_forgotten_before_the_call_is_not_asked_for(dataset: Dataset) -> None:
    with connection_to(dataset) as connection:
        run = claims.begin(connection, "anthropic", "m", prompt.PROMPT_HASH, "live", None)
        assert calls.intend(connection, run, 100, "hash", "first", None) is None
    assert one(dataset, "SELECT count(*) FROM graph_calls") == 0


def test_a_graph_that_another_provider_replaced_is_taken_back_and_not_asked_for_again(
    dataset: Dataset, server: Server
) -> None:
    listeners.store(dataset, 4)
    paid = asked(dataset, server, name="openai")
    assert asked(dataset, server, name="local").done == 4
    again = asked(dataset, server, name="openai")
    assert (paid.calls, again.done, again.calls) == (4, 4, 0)
    current = "SELECT DISTINCT provider, version FROM user_interest_graph WHERE is_current"
    assert rows(dataset, current) == [("openai", 3)]


def test_local_makes_the_same_bytes_and_needs_no_server(dataset: Dataset, server: Server) -> None:
    listeners.store(dataset, 5)
    assert asked(dataset, server, name="local").done == 5
    graphs = "SELECT graph::text FROM user_interest_graph WHERE is_current ORDER BY user_key"
    before = rows(dataset, graphs)
    with dataset.engine.begin() as connection:
        connection.execute(text("DELETE FROM user_interest_graph"))
    assert asked(dataset, server, name="local").done == 5
    assert rows(dataset, graphs) == before
    assert server.calls == []


def test_a_reply_is_kept_to_the_letter_until_its_time_is_over(
    dataset: Dataset, server: Server
) -> None:
    listeners.store(dataset, 1)
    odd = {"text": "\x00 \ud800 “”", "n": 1.0}
    with connection_to(dataset) as connection:
        run = claims.begin(connection, "anthropic", "m", prompt.PROMPT_HASH, "live", None)
        call = calls.intend(connection, run, 100, "hash", "first", None)
        answer = Answer(raw=odd, text="\x00", end="complete", usage=None, model="m")
        assert calls.answered(connection, call, answer, None)
        assert not calls.answered(connection, call, answer, None)
        ((reply,),) = calls.open_replies(connection, run, [100]).values()
        assert reply.text == "\x00"
    stored = one(dataset, "SELECT reply::text FROM graph_calls")
    assert json.loads(stored) == {"raw": odd, "text": "\x00"}
    assert drop_replies(dataset, 1) == 0
    assert drop_replies(dataset, 0) == 1
    assert one(dataset, "SELECT reply FROM graph_calls") is None


@pytest.mark.parametrize("name", ["anthropic", "openai"])
def test_a_batch_is_handed_over_and_fetched_by_a_later_run(
    dataset: Dataset, server: Server, name: str
) -> None:
    become(server, batch_seconds=0.2, forbidden=tuple(listeners.store(dataset, 12)))
    plan = Plan(size=5, poll_seconds=0.05, wait=False)
    first = asked(dataset, server, plan=plan, name=name)
    assert (first.batched, first.calls) == (12, 12)
    time.sleep(0.3)
    second = asked(dataset, server, plan=plan, name=name)
    assert (second.done, second.batched, second.calls) == (12, 0, 0)
    assert second.collected == pytest.approx(
        one(dataset, "SELECT sum(cost_usd) FROM graph_calls") * 10**9
    )
    assert asked(dataset, server, plan=plan, name=name).unchanged == 12
    assert server.problems == []


def test_replies_of_a_batch_that_nobody_has_read_outlive_their_time(
    dataset: Dataset, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    become(server, batch_seconds=0.0)
    listeners.store(dataset, 3)
    plan = Plan(poll_seconds=0.05)

    async def killed(*_: object) -> None:
        raise KeyError("the process ends here")

    with monkeypatch.context() as patch:
        patch.setattr(batching.BatchJob, "_judge", killed)
        with pytest.raises(KeyError):
            asked(dataset, server, plan=plan)
    assert one(dataset, "SELECT count(*) FROM graph_calls WHERE state = 'answered'") == 3
    assert drop_replies(dataset, 0) == 0
    tally = asked(dataset, server, plan=plan)
    assert (tally.done, tally.calls) == (3, 0)
    assert drop_replies(dataset, 0) == 3


@pytest.mark.parametrize("name", ["anthropic", "openai"])
def test_calls_of_a_batch_that_went_wrong_are_asked_or_mended_in_the_next(
    dataset: Dataset, server: Server, name: str
) -> None:
    listeners.store(dataset, 8)
    next_faults(server, "wrong_ids", "server_error", "refused")
    tally = asked(dataset, server, plan=Plan(poll_seconds=0.05), name=name)
    assert (tally.done, tally.quarantined) == (7, 1)
    assert (tally.repairs, tally.retries, tally.calls) == (1, 1, 10)


@pytest.mark.parametrize("name", ["anthropic", "openai"])
def test_a_batch_whose_creation_was_cut_off_is_found_and_not_made_again(
    dataset: Dataset, server: Server, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    listeners.store(dataset, 6)

    async def killed(*_: object) -> None:
        raise KeyError("the process ends here")

    with monkeypatch.context() as patch:
        patch.setattr(desk.Desk, "_submitted", killed)
        with pytest.raises(KeyError):
            asked(dataset, server, plan=Plan(poll_seconds=0.05), name=name)
    tally = asked(dataset, server, plan=Plan(poll_seconds=0.05), name=name)
    assert (tally.done, tally.calls) == (6, 0)


@pytest.mark.parametrize("name", ["anthropic", "openai"])
def test_a_batch_that_was_never_created_is_taken_back_and_asked_anew(
    dataset: Dataset, server: Server, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    listeners.store(dataset, 6)
    monkeypatch.setattr(desk, "UNKNOWN_SECONDS", 0.0)
    provider = provider_of(name, None, server.url)
    with connection_to(dataset) as connection:
        run = claims.begin(connection, name, provider.model, prompt.PROMPT_HASH, "batch", None)
        found = summaries(dataset, claims.next_users(connection, -1, 10))
        claims.claim(connection, run, list(found))
        first: Round = "first"
        questions = [
            batches.Question(key, summary, first, "", 0, None) for key, summary in found.items()
        ]
        batches.intend(connection, run, "musicrec-lost", questions)
    tally = asked(dataset, server, plan=Plan(poll_seconds=0.05), name=name)
    assert (tally.done, tally.calls) == (6, 6)
    assert sorted(rows(dataset, "SELECT state FROM graph_batches")) == [
        ("abandoned",),
        ("ingested",),
    ]


def test_a_dry_run_guesses_tokens_to_a_tenth_and_calls_nobody(
    dataset: Dataset, server: Server
) -> None:
    listeners.store(dataset, 10)
    provider = provider_of("anthropic", None, server.url)
    offer = Offer("anthropic", provider.model, PRICES[provider.model])
    told = estimate(dataset, offer, None, QUICK)
    assert server.calls == []
    assert one(dataset, "SELECT count(*) FROM graph_tasks") == 0
    keys = [key for (key,) in rows(dataset, "SELECT user_key FROM users")]

    async def counted() -> int:
        asks = [
            Ask(summary, prompt.SYSTEM, prompt.prompt_of(summary), 4000)
            for summary in summaries(dataset, keys).values()
        ]
        return sum([await provider.count_tokens(ask) for ask in asks])

    assert told.input_tokens == pytest.approx(asyncio.run(counted()), rel=0.1)
    assert told.cost is not None
    assert told.cost[0] <= asked(dataset, server).spent <= told.cost[1]


def generation(dataset: Dataset, cwd: Path, *settings: str) -> Any:
    return commands.command(
        "generate_interest_graph", "--all-users", f"dataset={dataset.name}", *settings, cwd=cwd
    )


def test_after_kill_9_only_what_was_in_flight_is_asked_again(
    dataset: Dataset, server: Server, tmp_path: Path
) -> None:
    listeners.store(dataset, 60)
    become(server, latency_seconds=0.15)
    settings = ("--provider", "openai", f"llm.base_url={server.openai_url}", "llm.max_in_flight=6")
    in_flight = 0
    for reached in (15, 40):
        process = generation(dataset, tmp_path, *settings)
        while len(server.calls) < reached:
            assert process.poll() is None, commands.finished(process)
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
        _, said = process.communicate()
        assert said == ""  # of libraries that tell of every call
        in_flight += one(dataset, "SELECT count(*) FROM graph_calls WHERE state = 'asked'")
    out = commands.done(generation(dataset, tmp_path, *settings))
    times = Counter(call.prompt for call in server.calls)
    assert len(times) == 60
    assert sum(times.values()) - 60 <= in_flight <= 12
    assert one(dataset, "SELECT count(*) FROM graph_tasks WHERE state = 'done'") == 60
    assert one(dataset, "SELECT count(*) FROM user_interest_graph") == 60
    assert "were in flight when an earlier run was killed" in out
    assert asked(dataset, server, name="openai").calls == 0


def test_the_command_says_who_has_no_graph_and_why_and_ends_with_3(
    dataset: Dataset, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = listeners.store(dataset, 3)
    next_faults(server, "refused")
    url = f"llm.base_url={server.url}"
    given = ["llm=anthropic", url, "llm.max_in_flight=1", "all_users=true"]
    with pytest.raises(SystemExit) as ended:
        generate_graph(compose("generate_graph", [*given, f"dataset={dataset.name}"]))
    out = capsys.readouterr().out
    assert ended.value.code == 3
    assert f"user {ids[0]}: quarantined: the provider refused to answer" in out
    kept = [
        rows(dataset, f"SELECT t::text FROM {name} AS t") for name in ("graph_runs", "graph_calls")
    ]
    assert KEY not in out + str(kept)


def test_a_dry_run_needs_no_key(
    dataset: Dataset, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    listeners.store(dataset, 3)
    given = ["llm=openai", "all_users=true", "dry_run=true", f"dataset={dataset.name}"]
    generate_graph(compose("generate_graph", given))
    assert "nothing was called" in capsys.readouterr().out
