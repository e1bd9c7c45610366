"""Raw replies and the summaries sent with batches are kept for a while, and then only counted."""

from __future__ import annotations

from musicrec.database.engine import Dataset
from musicrec.graph.writing import connection_to


def drop_replies(dataset: Dataset, older_than_days: float) -> int:
    """Forget what was received more than so many days ago; tokens, cost and reasons stay.

    What is still in flight or waits in a batch keeps its summary.

    Returns:
        How many calls' replies are gone.

    Raises:
        DatabaseError: Postgres refuses or is lost.
    """
    with connection_to(dataset) as connection:
        return connection.execute(
            "UPDATE graph_calls SET reply = NULL, summary = NULL"
            " WHERE asked_at < clock_timestamp() - %s * interval '1 day'"
            " AND (reply IS NOT NULL OR summary IS NOT NULL) AND state <> 'asked'"
            " AND NOT EXISTS (SELECT FROM graph_tasks AS t WHERE t.batch_id = graph_calls.batch_id"
            " AND t.user_key = graph_calls.user_key AND t.provider = graph_calls.provider"
            " AND t.model = graph_calls.model)",
            (older_than_days,),
        ).rowcount
