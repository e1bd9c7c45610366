"""Listeners, tracks, listens, and what imports leave behind.

Every name is left unqualified: the connection's search path holds the dataset and nothing else.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None

UNIT_FEATURES = (
    "danceability",
    "energy",
    "valence",
    "acousticness",
    "instrumentalness",
    "speechiness",
    "liveness",
)

# One row for every statement that touched listens or tracks. The function finds its dataset by
# the table that fired it, so it works under any search path, and after a renaming of the schema.
NOTE_CHANGE = """
CREATE FUNCTION note_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('INSERT INTO %I.data_changes DEFAULT VALUES', TG_TABLE_SCHEMA);
    RETURN NULL;
END
$$
"""


def upgrade() -> None:
    """Make the tables, the triggers, and the one row that says what the dataset is."""
    _create_bookkeeping()
    _create_users_and_tracks()
    _create_interactions()
    _create_imports()
    op.execute(NOTE_CHANGE)
    for table in ("interactions", "tracks", "users"):
        op.execute(
            f"CREATE TRIGGER {table}_note_change"
            f" AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON {table}"
            " FOR EACH STATEMENT EXECUTE FUNCTION note_change()"
        )
    op.execute("INSERT INTO dataset_info DEFAULT VALUES")


def _timestamp() -> postgresql.TIMESTAMP:
    return postgresql.TIMESTAMP(timezone=True)


def _now(name: str) -> sa.Column[object]:
    return sa.Column(name, _timestamp(), server_default=sa.func.now(), nullable=False)


def _surrogate(name: str) -> sa.Column[int]:
    comment = "surrogate; never leaves Postgres"
    return sa.Column(name, sa.BigInteger, sa.Identity(), primary_key=True, comment=comment)


def _create_bookkeeping() -> None:
    op.create_table(
        "dataset_info",
        sa.Column("one", sa.Boolean, primary_key=True, server_default=sa.text("true")),
        sa.Column("dataset_id", sa.Uuid, server_default=sa.func.gen_random_uuid(), nullable=False),
        sa.Column("timed", sa.Boolean),
        _now("created_at"),
        sa.CheckConstraint("one", name="dataset_info_one_row"),
    )
    op.create_table(
        "data_changes",
        sa.Column("change_id", sa.BigInteger, sa.Identity(), primary_key=True),
        _now("changed_at"),
    )


def _create_users_and_tracks() -> None:
    op.create_table(
        "users",
        _surrogate("user_key"),
        sa.Column("user_id", sa.Text, unique=True, nullable=False, comment="outside id"),
        _now("created_at"),
    )
    op.create_table(
        "tracks",
        _surrogate("track_key"),
        sa.Column(
            "track_id",
            sa.Text,
            unique=True,
            nullable=False,
            comment="outside id; from artist and title where the source gives none",
        ),
        sa.Column("title", sa.Text),
        sa.Column("artist", sa.Text),
        sa.Column("album", sa.Text),
        sa.Column("released_on", sa.Date),
        sa.Column("duration_ms", sa.Integer, comment="milliseconds"),
        sa.Column("tags", postgresql.ARRAY(sa.Text)),
        sa.Column("danceability", sa.REAL, comment="0..1"),
        sa.Column("energy", sa.REAL, comment="0..1"),
        sa.Column("valence", sa.REAL, comment="0 sad .. 1 happy"),
        sa.Column("tempo", sa.REAL, comment="beats per minute"),
        sa.Column("loudness", sa.REAL, comment="dBFS, usually -60..0"),
        sa.Column("acousticness", sa.REAL, comment="0..1"),
        sa.Column("instrumentalness", sa.REAL, comment="0..1"),
        sa.Column("speechiness", sa.REAL, comment="0..1"),
        sa.Column("liveness", sa.REAL, comment="0..1"),
        sa.CheckConstraint("duration_ms >= 0", name="tracks_duration_not_negative"),
        sa.CheckConstraint("tempo >= 0", name="tracks_tempo_not_negative"),
        *(
            sa.CheckConstraint(f"{feature} BETWEEN 0 AND 1", name=f"tracks_{feature}_unit")
            for feature in UNIT_FEATURES
        ),
    )


def _create_interactions() -> None:
    op.create_table(
        "interactions",
        sa.Column("user_key", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("occurred_at", _timestamp(), primary_key=True, comment="start of the play, UTC"),
        sa.Column("track_key", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column(
            "tie",
            sa.SmallInteger,
            nullable=False,
            comment="order of the file's lines among a listener's equal times, from 0",
        ),
        sa.Column("ms_played", sa.Integer, comment="milliseconds heard"),
        sa.Column("skipped", sa.Boolean),
        sa.Column("device", sa.Text),
        sa.Column("source", sa.Text, nullable=False, comment="the format it came from"),
        sa.CheckConstraint("ms_played >= 0", name="interactions_ms_played_not_negative"),
        sa.CheckConstraint("tie >= 0", name="interactions_tie_not_negative"),
        sa.CheckConstraint(
            "occurred_at >= '1970-01-01 00:00:00+00'", name="interactions_after_1970"
        ),
        sa.CheckConstraint(
            "occurred_at <= now() + interval '1 day'", name="interactions_not_in_the_future"
        ),
    )
    op.create_index(
        "interactions_in_order",
        "interactions",
        ["user_key", "occurred_at", "tie"],
        postgresql_include=["track_key", "ms_played", "skipped"],
    )


def _create_imports() -> None:
    op.create_table(
        "rejected_rows",
        sa.Column("source", sa.Text, primary_key=True, comment="fingerprint of the import"),
        sa.Column("line", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("raw", sa.Text, nullable=False, comment="the line, cut at 1,000 characters"),
    )
    op.create_table(
        "imports",
        sa.Column("fingerprint", sa.Text, primary_key=True),
        sa.Column("source", sa.Text, nullable=False, comment="path or name, as the user gave it"),
        sa.Column("format", sa.Text, nullable=False),
        sa.Column(
            "last_line",
            sa.BigInteger,
            nullable=False,
            comment="committed up to and with this line",
        ),
        sa.Column("rows_added", sa.BigInteger, nullable=False),
        sa.Column(
            "rows_known",
            sa.BigInteger,
            nullable=False,
            comment="duplicates and already stored",
        ),
        sa.Column("rows_rejected", sa.BigInteger, nullable=False),
        _now("started_at"),
        sa.Column("finished_at", _timestamp(), comment="null while unfinished"),
        sa.Column(
            "finished_state",
            sa.Text,
            comment="data_changes when last verified to its end: count and highest id",
        ),
    )
