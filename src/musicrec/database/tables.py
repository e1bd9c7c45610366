"""The tables of one dataset, as typed SQLAlchemy models.

A dataset is a Postgres schema; the models name no schema, the connection's ``search_path`` does.
What the migrations build and what stands here are compared by a test.

Keys: ``user_key`` and ``track_key`` are surrogates given by the importer in order of first
appearance; they never leave Postgres. Order of a listener's plays is ``(occurred_at, tie)``
everywhere, where ``tie`` counts the file's lines among equal times.
"""

from __future__ import annotations

import uuid
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Identity,
    Index,
    Numeric,
    SmallInteger,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSON, JSONB, REAL, TIMESTAMP
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

Timestamp = TIMESTAMP(timezone=True)
Dollars = Numeric(12, 6)


class Table(DeclarativeBase):
    """Base of every table of a dataset."""


class DatasetInfo(Table):
    """One row: what the dataset is.

    ``timed`` is null until the first import; an untimed dataset holds the order of plays only.
    """

    __tablename__ = "dataset_info"
    __table_args__ = (CheckConstraint("one", name="dataset_info_one_row"),)

    one: Mapped[bool] = mapped_column(primary_key=True, server_default=text("true"))
    dataset_id: Mapped[uuid.UUID] = mapped_column(server_default=func.gen_random_uuid())
    timed: Mapped[bool | None]
    created_at: Mapped[datetime] = mapped_column(Timestamp, server_default=func.now())


class DataChange(Table):
    """One row for every statement that touched listens, tracks or users, written by a trigger.

    Append-only and transactional: ``(count, max(change_id))`` as a snapshot sees them name the
    state of the data, whoever changed it, so a stale training snapshot is always noticed.
    """

    __tablename__ = "data_changes"

    change_id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    changed_at: Mapped[datetime] = mapped_column(Timestamp, server_default=func.now())


class User(Table):
    """A listener."""

    __tablename__ = "users"

    user_key: Mapped[int] = mapped_column(
        BigInteger, Identity(), primary_key=True, comment="surrogate; never leaves Postgres"
    )
    user_id: Mapped[str] = mapped_column(Text, unique=True, comment="outside id")
    created_at: Mapped[datetime] = mapped_column(Timestamp, server_default=func.now())


def _unit_interval(column: str) -> CheckConstraint:
    return CheckConstraint(f"{column} BETWEEN 0 AND 1", name=f"tracks_{column}_unit")


class Track(Table):
    """A track; everything but the id may be unknown."""

    __tablename__ = "tracks"
    __table_args__ = (
        CheckConstraint("duration_ms >= 0", name="tracks_duration_not_negative"),
        CheckConstraint("tempo >= 0", name="tracks_tempo_not_negative"),
        *(
            _unit_interval(column)
            for column in (
                "danceability",
                "energy",
                "valence",
                "acousticness",
                "instrumentalness",
                "speechiness",
                "liveness",
            )
        ),
    )

    track_key: Mapped[int] = mapped_column(
        BigInteger, Identity(), primary_key=True, comment="surrogate; never leaves Postgres"
    )
    track_id: Mapped[str] = mapped_column(
        Text, unique=True, comment="outside id; from artist and title where the source gives none"
    )
    title: Mapped[str | None] = mapped_column(Text)
    artist: Mapped[str | None] = mapped_column(Text)
    album: Mapped[str | None] = mapped_column(Text)
    released_on: Mapped[date | None]
    duration_ms: Mapped[int | None] = mapped_column(comment="milliseconds")
    tags: Mapped[list[str] | None] = mapped_column(ARRAY(Text))
    danceability: Mapped[float | None] = mapped_column(REAL, comment="0..1")
    energy: Mapped[float | None] = mapped_column(REAL, comment="0..1")
    valence: Mapped[float | None] = mapped_column(REAL, comment="0 sad .. 1 happy")
    tempo: Mapped[float | None] = mapped_column(REAL, comment="beats per minute")
    loudness: Mapped[float | None] = mapped_column(REAL, comment="dBFS, usually -60..0")
    acousticness: Mapped[float | None] = mapped_column(REAL, comment="0..1")
    instrumentalness: Mapped[float | None] = mapped_column(REAL, comment="0..1")
    speechiness: Mapped[float | None] = mapped_column(REAL, comment="0..1")
    liveness: Mapped[float | None] = mapped_column(REAL, comment="0..1")


class Interaction(Table):
    """One play.

    The natural key is the primary key, so importing the same file twice changes nothing. No
    per-row foreign keys: the importer maps outside ids to keys itself, and a foreign key costs
    two thirds of its speed.
    """

    __tablename__ = "interactions"
    __table_args__ = (
        CheckConstraint("ms_played >= 0", name="interactions_ms_played_not_negative"),
        CheckConstraint("tie >= 0", name="interactions_tie_not_negative"),
        CheckConstraint("occurred_at >= '1970-01-01 00:00:00+00'", name="interactions_after_1970"),
        CheckConstraint(
            "occurred_at <= now() + interval '1 day'", name="interactions_not_in_the_future"
        ),
        Index(
            "interactions_in_order",
            "user_key",
            "occurred_at",
            "tie",
            postgresql_include=["track_key", "ms_played", "skipped"],
        ),
    )

    user_key: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    occurred_at: Mapped[datetime] = mapped_column(
        Timestamp, primary_key=True, comment="start of the play, UTC"
    )
    track_key: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    tie: Mapped[int] = mapped_column(
        SmallInteger, comment="order of the file's lines among a listener's equal times, from 0"
    )
    ms_played: Mapped[int | None] = mapped_column(comment="milliseconds heard")
    skipped: Mapped[bool | None]
    device: Mapped[str | None] = mapped_column(Text)
    source: Mapped[str] = mapped_column(Text, comment="the format it came from")


class Feedback(Table):
    """What a listener said of a track. Their newest word on it counts."""

    __tablename__ = "feedback"
    __table_args__ = (CheckConstraint("kind IN ('like', 'dislike')", name="feedback_kind"),)

    user_key: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    track_key: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    occurred_at: Mapped[datetime] = mapped_column(
        Timestamp, primary_key=True, comment="when it was said, UTC"
    )
    kind: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(Timestamp, server_default=func.now())


class StoredRecommendation(Table):
    """One place of the newest recommendations that were made for a listener ahead of time."""

    __tablename__ = "recommendations"
    __table_args__ = (CheckConstraint("place >= 1", name="recommendations_place_from_one"),)

    user_key: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    place: Mapped[int] = mapped_column(
        SmallInteger, primary_key=True, autoincrement=False, comment="1 is the best"
    )
    track_key: Mapped[int] = mapped_column(BigInteger)
    score: Mapped[float] = mapped_column(
        REAL, comment="orders one listener's and means nothing beyond"
    )
    model_version: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(Timestamp, server_default=func.now())


class RejectedRow(Table):
    """A row that was refused at import, with the reason. One per source and line."""

    __tablename__ = "rejected_rows"

    source: Mapped[str] = mapped_column(Text, primary_key=True, comment="fingerprint of the import")
    line: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    reason: Mapped[str] = mapped_column(Text)
    raw: Mapped[str] = mapped_column(Text, comment="the line, cut at 1,000 characters")


class Import(Table):
    """One source's import: how far it got and what it did. Keyed by the source's fingerprint."""

    __tablename__ = "imports"

    fingerprint: Mapped[str] = mapped_column(Text, primary_key=True)
    source: Mapped[str] = mapped_column(Text, comment="path or name, as the user gave it")
    format: Mapped[str] = mapped_column(Text)
    last_line: Mapped[int] = mapped_column(BigInteger, comment="committed up to and with this line")
    rows_added: Mapped[int] = mapped_column(BigInteger)
    rows_known: Mapped[int] = mapped_column(BigInteger, comment="duplicates and already stored")
    rows_rejected: Mapped[int] = mapped_column(BigInteger)
    started_at: Mapped[datetime] = mapped_column(Timestamp, server_default=func.now())
    finished_at: Mapped[datetime | None] = mapped_column(Timestamp, comment="null while unfinished")
    finished_state: Mapped[str | None] = mapped_column(
        Text, comment="data_changes when last verified to its end: count and highest id"
    )


class UserInterestGraph(Table):
    """One version of a listener's interest graph, and where it comes from."""

    __tablename__ = "user_interest_graph"
    __table_args__ = (
        UniqueConstraint("user_key", "version", name="user_interest_graph_version"),
        CheckConstraint(
            "is_current = (valid_to IS NULL)", name="user_interest_graph_current_is_open"
        ),
        Index(
            "user_interest_graph_current",
            "user_key",
            unique=True,
            postgresql_where=text("is_current"),
        ),
    )

    graph_id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    user_key: Mapped[int] = mapped_column(BigInteger)
    version: Mapped[int] = mapped_column(comment="1 is the user's first")
    is_current: Mapped[bool]
    valid_from: Mapped[datetime] = mapped_column(Timestamp)
    valid_to: Mapped[datetime | None] = mapped_column(Timestamp, comment="null while current")
    graph: Mapped[dict[str, Any]] = mapped_column(JSONB, comment="the truth: InterestGraph")
    provider: Mapped[str] = mapped_column(Text)
    model: Mapped[str] = mapped_column(Text)
    prompt_hash: Mapped[str] = mapped_column(Text)
    input_hash: Mapped[str] = mapped_column(Text, comment="of the summary that was sent")
    input_tokens: Mapped[int]
    output_tokens: Mapped[int]
    cost_usd: Mapped[Decimal | None] = mapped_column(
        Dollars, comment="null where the price is not known"
    )
    created_at: Mapped[datetime] = mapped_column(Timestamp, server_default=func.now())


def _of_graph() -> Mapped[int]:
    graph = ForeignKey("user_interest_graph.graph_id", ondelete="CASCADE")
    return mapped_column(BigInteger, graph, primary_key=True, autoincrement=False)


class InterestNode(Table):
    """A node of a graph, derived from ``UserInterestGraph.graph`` for joins."""

    __tablename__ = "interest_nodes"
    __table_args__ = (Index("interest_nodes_by_label", "kind", "label"),)

    graph_id: Mapped[int] = _of_graph()
    node: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    kind: Mapped[str] = mapped_column(Text)
    label: Mapped[str] = mapped_column(Text)
    weight: Mapped[float] = mapped_column(REAL)
    term: Mapped[str] = mapped_column(Text)


class InterestEdge(Table):
    """A relation of a graph, derived as its nodes are."""

    __tablename__ = "interest_edges"

    graph_id: Mapped[int] = _of_graph()
    source: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    target: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    kind: Mapped[str] = mapped_column(Text, primary_key=True)
    weight: Mapped[float] = mapped_column(REAL)


class GraphRun(Table):
    """One process that asked for graphs. While it lives it holds an advisory lock of its id."""

    __tablename__ = "graph_runs"
    __table_args__ = (CheckConstraint("mode IN ('live', 'batch')", name="graph_runs_mode"),)

    run_id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    provider: Mapped[str] = mapped_column(Text)
    model: Mapped[str] = mapped_column(Text)
    prompt_hash: Mapped[str] = mapped_column(Text)
    mode: Mapped[str] = mapped_column(Text)
    max_cost_usd: Mapped[Decimal | None] = mapped_column(Dollars, comment="null: without bound")
    started_at: Mapped[datetime] = mapped_column(Timestamp, server_default=func.now())
    finished_at: Mapped[datetime | None] = mapped_column(
        Timestamp, comment="null while it runs, or if it was killed"
    )
    outcome: Mapped[str | None] = mapped_column(Text, comment="what it printed, in one line")


class GraphTask(Table):
    """What became of a listener at a provider's model."""

    __tablename__ = "graph_tasks"
    __table_args__ = (
        CheckConstraint(
            "state IN ('new', 'done', 'empty', 'failed', 'quarantined', 'batched')",
            name="graph_tasks_state",
        ),
        CheckConstraint(
            "(state = 'batched') = (batch_id IS NOT NULL)", name="graph_tasks_batched_has_batch"
        ),
    )

    user_key: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    provider: Mapped[str] = mapped_column(Text, primary_key=True)
    model: Mapped[str] = mapped_column(Text, primary_key=True)
    state: Mapped[str] = mapped_column(Text)
    prompt_hash: Mapped[str | None] = mapped_column(
        Text, comment="what the state is about; so input_hash"
    )
    input_hash: Mapped[str | None] = mapped_column(Text)
    reason: Mapped[str | None] = mapped_column(Text, comment="why there is no graph")
    claimed_by: Mapped[int | None] = mapped_column(
        BigInteger, comment="the run that works on it; null: none"
    )
    batch_id: Mapped[int | None] = mapped_column(BigInteger, comment="the batch it waits for")
    changed_at: Mapped[datetime] = mapped_column(Timestamp, server_default=func.now())


class GraphCall(Table):
    """One call: stored before it is made, and its reply before anybody reads it."""

    __tablename__ = "graph_calls"
    __table_args__ = (
        CheckConstraint("round IN ('first', 'repair')", name="graph_calls_round"),
        CheckConstraint(
            "state IN ('asked', 'answered', 'failed', 'lost')", name="graph_calls_state"
        ),
        Index(
            "graph_calls_open",
            "user_key",
            "provider",
            "model",
            postgresql_where=text("NOT is_settled"),
        ),
        Index("graph_calls_of_batch", "batch_id"),
        Index(
            "graph_calls_kept_replies",
            "asked_at",
            postgresql_where=text("reply IS NOT NULL OR summary IS NOT NULL"),
        ),
    )

    call_id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    user_key: Mapped[int] = mapped_column(BigInteger)
    run_id: Mapped[int] = mapped_column(BigInteger, comment="the run that asked")
    batch_id: Mapped[int | None] = mapped_column(
        BigInteger, comment="null where it was asked by itself"
    )
    provider: Mapped[str] = mapped_column(Text)
    model: Mapped[str] = mapped_column(Text)
    prompt_hash: Mapped[str] = mapped_column(Text)
    input_hash: Mapped[str] = mapped_column(Text, comment="of the summary that was sent")
    summary: Mapped[Any | None] = mapped_column(JSON, comment="as sent, for a batch's late reply")
    round: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(Text)
    asked_at: Mapped[datetime] = mapped_column(Timestamp, server_default=func.now())
    ended_at: Mapped[datetime | None] = mapped_column(
        Timestamp, comment="when the answer or the failure came"
    )
    ended: Mapped[str | None] = mapped_column(Text, comment="complete, truncated or refused")
    reply: Mapped[Any | None] = mapped_column(JSON, comment="as received; null past its retention")
    problem: Mapped[str | None] = mapped_column(
        Text, comment="why there was no answer, or it was not taken"
    )
    may_be_billed: Mapped[bool] = mapped_column(server_default=text("false"))
    input_tokens: Mapped[int | None]
    output_tokens: Mapped[int | None]
    cached_tokens: Mapped[int | None] = mapped_column(comment="among the input tokens")
    reserved_usd: Mapped[Decimal | None] = mapped_column(
        Numeric(14, 9), comment="most it could cost; null: unknown"
    )
    cost_usd: Mapped[Decimal | None] = mapped_column(Numeric(14, 9), comment="null while unknown")
    is_settled: Mapped[bool] = mapped_column(
        server_default=text("false"),
        comment="what became of the user is stored, and this is never read again",
    )


class GraphBatch(Table):
    """Many calls handed over at once: stored before they are, found again after a crash."""

    __tablename__ = "graph_batches"
    __table_args__ = (
        CheckConstraint(
            "state IN ('intended', 'submitted', 'ingested', 'abandoned')",
            name="graph_batches_state",
        ),
    )

    batch_id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    name: Mapped[str] = mapped_column(Text, unique=True, comment="ours; providers know it")
    provider: Mapped[str] = mapped_column(Text)
    model: Mapped[str] = mapped_column(Text)
    prompt_hash: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(Text)
    provider_batch: Mapped[str | None] = mapped_column(
        Text, comment="the provider's id; null until it said so"
    )
    claimed_by: Mapped[int | None] = mapped_column(
        BigInteger, comment="the run that works on it; null: none"
    )
    num_calls: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(Timestamp, server_default=func.now())
    ended_at: Mapped[datetime | None] = mapped_column(Timestamp)
