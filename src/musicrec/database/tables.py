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

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Identity,
    Index,
    SmallInteger,
    Text,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, REAL, TIMESTAMP
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

Timestamp = TIMESTAMP(timezone=True)


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
