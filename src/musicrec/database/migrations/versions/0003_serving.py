"""What listeners said of tracks, and recommendations made for all of them at once."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "feedback",
        sa.Column("user_key", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("track_key", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("occurred_at", _timestamp(), primary_key=True, comment="when it was said, UTC"),
        sa.Column("kind", sa.Text, nullable=False),
        _now("created_at"),
        sa.CheckConstraint("kind IN ('like', 'dislike')", name="feedback_kind"),
    )
    op.create_table(
        "recommendations",
        sa.Column("user_key", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column(
            "place",
            sa.SmallInteger,
            primary_key=True,
            autoincrement=False,
            comment="1 is the best",
        ),
        sa.Column("track_key", sa.BigInteger, nullable=False),
        sa.Column(
            "score",
            sa.REAL,
            nullable=False,
            comment="orders one listener's and means nothing beyond",
        ),
        sa.Column("model_version", sa.Text, nullable=False),
        _now("created_at"),
        sa.CheckConstraint("place >= 1", name="recommendations_place_from_one"),
    )


def _timestamp() -> postgresql.TIMESTAMP:
    return postgresql.TIMESTAMP(timezone=True)


def _now(name: str) -> sa.Column[object]:
    return sa.Column(name, _timestamp(), server_default=sa.func.now(), nullable=False)
