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
    _create_job()


def _create_graphs() -> None:
    op.create_table(
        "user_interest_graph",
        sa.Column("graph_id", sa.BigInteger, sa.Identity(), primary_key=True),
        sa.Column("user_key", sa.BigInteger, nullable=False),
        sa.Column("version", sa.Integer, nullable=False, comment="1 is the user's first"),
        sa.Column("is_current", sa.Boolean, nullable=False),
        sa.Column("valid_from", _timestamp(), nullable=False),
        sa.Column("valid_to", _timestamp(), comment="null while current"),
        sa.Column("graph", postgresql.JSONB, nullable=False, comment="the truth: InterestGraph"),
        sa.Column("provider", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("prompt_hash", sa.Text, nullable=False),
        sa.Column("input_hash", sa.Text, nullable=False, comment="of the summary that was sent"),
        sa.Column("input_tokens", sa.Integer, nullable=False),
        sa.Column("output_tokens", sa.Integer, nullable=False),
        sa.Column("cost_usd", sa.Numeric(12, 6), comment="null where the price is not known"),
        _now("created_at"),
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
        _of_graph(),
        sa.Column("node", sa.SmallInteger, primary_key=True, autoincrement=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("label", sa.Text, nullable=False),
        sa.Column("weight", postgresql.REAL, nullable=False),
        sa.Column("term", sa.Text, nullable=False),
    )
    op.create_index("interest_nodes_by_label", "interest_nodes", ["kind", "label"])
    op.create_table(
        "interest_edges",
        _of_graph(),
        sa.Column("source", sa.SmallInteger, primary_key=True, autoincrement=False),
        sa.Column("target", sa.SmallInteger, primary_key=True, autoincrement=False),
        sa.Column("kind", sa.Text, primary_key=True),
        sa.Column("weight", postgresql.REAL, nullable=False),
    )


def _create_job() -> None:
    op.create_table(
        "graph_runs",
        sa.Column("run_id", sa.BigInteger, sa.Identity(), primary_key=True),
        *_whose(),
        sa.Column("prompt_hash", sa.Text, nullable=False),
        sa.Column("mode", sa.Text, nullable=False),
        sa.Column("max_cost_usd", sa.Numeric(12, 6), comment="null: without bound"),
        _now("started_at"),
        sa.Column("finished_at", _timestamp(), comment="null while it runs, or if it was killed"),
        sa.Column("outcome", sa.Text, comment="what it printed, in one line"),
        sa.CheckConstraint("mode IN ('live', 'batch')", name="graph_runs_mode"),
    )
    op.create_table(
        "graph_tasks",
        sa.Column("user_key", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("provider", sa.Text, primary_key=True),
        sa.Column("model", sa.Text, primary_key=True),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("prompt_hash", sa.Text, comment="what the state is about; so input_hash"),
        sa.Column("input_hash", sa.Text),
        sa.Column("reason", sa.Text, comment="why there is no graph"),
        sa.Column("claimed_by", sa.BigInteger, comment="the run that works on it; null: none"),
        sa.Column("batch_id", sa.BigInteger, comment="the batch it waits for"),
        _now("changed_at"),
        sa.CheckConstraint(
            "state IN ('new', 'done', 'empty', 'failed', 'quarantined', 'batched')",
            name="graph_tasks_state",
        ),
        sa.CheckConstraint(
            "(state = 'batched') = (batch_id IS NOT NULL)", name="graph_tasks_batched_has_batch"
        ),
    )
    _create_calls()
    op.create_table(
        "graph_batches",
        sa.Column("batch_id", sa.BigInteger, sa.Identity(), primary_key=True),
        sa.Column("name", sa.Text, unique=True, nullable=False, comment="ours; providers know it"),
        *_whose(),
        sa.Column("prompt_hash", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("provider_batch", sa.Text, comment="the provider's id; null until it said so"),
        sa.Column("claimed_by", sa.BigInteger, comment="the run that works on it; null: none"),
        sa.Column("num_calls", sa.Integer, nullable=False),
        _now("created_at"),
        sa.Column("ended_at", _timestamp()),
        sa.CheckConstraint(
            "state IN ('intended', 'submitted', 'ingested', 'abandoned')",
            name="graph_batches_state",
        ),
    )


def _create_calls() -> None:
    op.create_table(
        "graph_calls",
        sa.Column("call_id", sa.BigInteger, sa.Identity(), primary_key=True),
        sa.Column("user_key", sa.BigInteger, nullable=False),
        sa.Column("run_id", sa.BigInteger, nullable=False, comment="the run that asked"),
        sa.Column("batch_id", sa.BigInteger, comment="null where it was asked by itself"),
        *_whose(),
        sa.Column("prompt_hash", sa.Text, nullable=False),
        sa.Column("input_hash", sa.Text, nullable=False, comment="of the summary that was sent"),
        sa.Column("summary", postgresql.JSON, comment="as sent, for a batch's late reply"),
        sa.Column("round", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        _now("asked_at"),
        sa.Column("ended_at", _timestamp(), comment="when the answer or the failure came"),
        sa.Column("ended", sa.Text, comment="complete, truncated or refused"),
        # json, not jsonb: it keeps every character as received, NUL among them.
        sa.Column("reply", postgresql.JSON, comment="as received; null past its retention"),
        sa.Column("problem", sa.Text, comment="why there was no answer, or it was not taken"),
        sa.Column("may_be_billed", sa.Boolean, nullable=False, server_default=sa.text("false")),
        sa.Column("input_tokens", sa.Integer),
        sa.Column("output_tokens", sa.Integer),
        sa.Column("cached_tokens", sa.Integer, comment="among the input tokens"),
        sa.Column("reserved_usd", sa.Numeric(14, 9), comment="most it could cost; null: unknown"),
        sa.Column("cost_usd", sa.Numeric(14, 9), comment="null while unknown"),
        sa.Column(
            "is_settled",
            sa.Boolean,
            nullable=False,
            server_default=sa.text("false"),
            comment="what became of the user is stored, and this is never read again",
        ),
        sa.CheckConstraint("round IN ('first', 'repair')", name="graph_calls_round"),
        sa.CheckConstraint(
            "state IN ('asked', 'answered', 'failed', 'lost')", name="graph_calls_state"
        ),
    )
    op.create_index(
        "graph_calls_open",
        "graph_calls",
        ["user_key", "provider", "model"],
        postgresql_where=sa.text("NOT is_settled"),
    )
    op.create_index("graph_calls_of_batch", "graph_calls", ["batch_id"])
    op.create_index(
        "graph_calls_kept_replies",
        "graph_calls",
        ["asked_at"],
        postgresql_where=sa.text("reply IS NOT NULL OR summary IS NOT NULL"),
    )


def _timestamp() -> postgresql.TIMESTAMP:
    return postgresql.TIMESTAMP(timezone=True)


def _now(name: str) -> sa.Column[object]:
    return sa.Column(name, _timestamp(), server_default=sa.func.now(), nullable=False)


def _whose() -> tuple[sa.Column[object], sa.Column[object]]:
    return (
        sa.Column("provider", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
    )


def _of_graph() -> sa.Column[object]:
    graph = sa.ForeignKey("user_interest_graph.graph_id", ondelete="CASCADE")
    return sa.Column("graph_id", sa.BigInteger, graph, primary_key=True, autoincrement=False)
