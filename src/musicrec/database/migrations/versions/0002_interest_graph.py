"""Interest graphs, and the state of the job that asks for them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Make the tables."""
    _create_graphs()


def _create_graphs() -> None:
    op.create_table(
        "user_interest_graph",
        sa.Column("graph_id", sa.BigInteger, sa.Identity(), primary_key=True),
        sa.Column("user_key", sa.BigInteger, nullable=False),
        sa.Column("version", sa.Integer, nullable=False, comment="1 is the user's first"),
        sa.Column("is_current", sa.Boolean, nullable=False),
        sa.Column("valid_from", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("valid_to", postgresql.TIMESTAMP(timezone=True), comment="null while current"),
        sa.Column("graph", postgresql.JSONB, nullable=False, comment="the truth: InterestGraph"),
        sa.Column("provider", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("prompt_hash", sa.Text, nullable=False),
        sa.Column("input_hash", sa.Text, nullable=False, comment="of the summary that was sent"),
        sa.Column("input_tokens", sa.Integer, nullable=False),
        sa.Column("output_tokens", sa.Integer, nullable=False),
        sa.Column("cost_usd", sa.Numeric(12, 6), comment="null where the price is not known"),
        sa.Column(
            "created_at",
            postgresql.TIMESTAMP(timezone=True),
            server_default=sa.func.now(),
            nullable=False,
        ),
        sa.UniqueConstraint("user_key", "version", name="user_interest_graph_version"),
        sa.CheckConstraint(
            "is_current = (valid_to IS NULL)", name="user_interest_graph_current_is_open"
        ),
    )
    op.create_index(
        "user_interest_graph_current",
        "user_interest_graph",
        ["user_key"],
        unique=True,
        postgresql_where=sa.text("is_current"),
    )
    op.create_table(
        "interest_nodes",
        sa.Column("graph_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("node", sa.SmallInteger, primary_key=True, autoincrement=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("label", sa.Text, nullable=False),
        sa.Column("weight", postgresql.REAL, nullable=False),
        sa.Column("term", sa.Text, nullable=False),
    )
    op.create_index("interest_nodes_by_label", "interest_nodes", ["kind", "label"])
    op.create_table(
        "interest_edges",
        sa.Column("graph_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("source", sa.SmallInteger, primary_key=True, autoincrement=False),
        sa.Column("target", sa.SmallInteger, primary_key=True, autoincrement=False),
        sa.Column("kind", sa.Text, primary_key=True),
        sa.Column("weight", postgresql.REAL, nullable=False),
    )
