"""Whether a reply is a graph; if not, what is wrong with it."""

from __future__ import annotations

from musicrec.graph.calls import Reply
from musicrec.graph.reading import ReplyError, graph_of
from musicrec.graph.schema import InterestGraph
from musicrec.graph.summary import Summary


def read(reply: Reply, summary: Summary, max_tokens: int) -> InterestGraph | str:
    """The graph, or one line that can be sent back to who wrote the reply."""
    if reply.ended == "refused":
        return "the provider refused to answer"
    if reply.ended == "truncated":
        return f"the reply was cut off at {max_tokens} tokens: write less"
    if reply.text is None:
        return "the reply holds no text"
    try:
        return graph_of(reply.text, summary)
    except ReplyError as error:
        return str(error)


def is_mendable(reply: Reply) -> bool:
    """Whether a reply that is no graph is worth a second round."""
    return reply.round == "first" and reply.ended != "refused"
