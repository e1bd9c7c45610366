"""Where a listener's data lives: the one list, by which ``erasure`` works.

Every table of a dataset is either in ``PLACES`` or in ``NOBODYS``; a test fails for a table that
is in neither, and for one with a user's column that is in the second. Data of a listener outside
of Postgres is named in ``OUTSIDE``, with who erases it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

#: What stands where a listener's id stood in the path of an imported file.
ERASED = "(erased)"

#: Formats whose lines need not say who listened: a refused one may be anybody's of that format.
NAMELESS = ("listenbrainz", "spotify", "table")

#: How long a refused line may be before it is cut, and its listener's id with it.
CUT_AT = 1_000


@dataclass(frozen=True, slots=True)
class Place:
    """Some rows that hold a listener's data.

    Attributes:
        name: as a receipt calls it.
        table: where; tables of features and such are there only once they were needed.
        rows: a condition for the listener's rows. ``:user_id`` and ``:user_key`` are theirs, the
            key null where the dataset does not know them; ``:named`` is a pattern of their id in
            a line of a file, ``:in_path`` in a path.
        becomes: what an ``UPDATE`` sets; None where the rows are deleted.
    """

    name: str
    table: str
    rows: str
    becomes: str | None = None


_OF_KEY = "user_key = CAST(:user_key AS bigint)"
_OF_ID = "user_id = CAST(:user_id AS text)"


def _of_key_or_nobody(table: str) -> str:
    """Also rows whose listener is gone: a call to an LLM that was under way may come back late."""
    known = f"SELECT FROM users WHERE users.user_key = {table}.user_key"
    return f"({_OF_KEY} OR NOT EXISTS ({known}))"


_GRAPHS = _of_key_or_nobody("user_interest_graph")
_OF_GRAPH = f"graph_id IN (SELECT graph_id FROM user_interest_graph WHERE {_GRAPHS})"  # noqa: S608

#: Emptied and not deleted: a row that is gone would come back, line and all, when its file is
#: imported again. Some hold no id, because they were cut or never had one: all that may be theirs.
_REFUSED = f"""
raw <> '' AND (
    raw ~ :named
    OR CAST(:user_key AS bigint) IS NOT NULL AND (
        length(raw) >= {CUT_AT}
        OR source IN (
            SELECT fingerprint FROM imports
            WHERE format IN ({", ".join(f"'{name}'" for name in NAMELESS)})
              AND EXISTS (SELECT FROM interactions AS i WHERE {_OF_KEY} AND i.source = format)
        )
        OR line::text = CAST(:user_id AS text)
        AND source IN (SELECT fingerprint FROM imports WHERE format = 'sequences')
    )
)
"""  # noqa: S608

_PATH_BECOMES = f"= regexp_replace({{0}}, :in_path, '\\1{ERASED}', 'g')"

#: In the order of erasure: what is found by another table's rows comes before them.
PLACES = (
    Place("lines refused at import", "rejected_rows", _REFUSED, "raw = ''"),
    Place(
        "paths in reasons of refusals",
        "rejected_rows",
        "reason ~ :in_path",
        "reason " + _PATH_BECOMES.format("reason"),
    ),
    Place(
        "paths of imported files",
        "imports",
        "source ~ :in_path",
        "source " + _PATH_BECOMES.format("source"),
    ),
    Place("interest nodes", "interest_nodes", _OF_GRAPH),
    Place("interest relations", "interest_edges", _OF_GRAPH),
    Place("interest graphs", "user_interest_graph", _GRAPHS),
    Place("tasks for interest graphs", "graph_tasks", _of_key_or_nobody("graph_tasks")),
    Place("calls to LLMs, with replies", "graph_calls", _of_key_or_nobody("graph_calls")),
    Place("listening features", "user_listening_stats", _OF_ID),
    Place("audio preferences", "user_audio_preferences", _OF_ID),
    Place("features with each track", "user_track_interactions", _OF_ID),
    Place("likes and dislikes", "feedback", _of_key_or_nobody("feedback")),
    Place("stored recommendations", "recommendations", _of_key_or_nobody("recommendations")),
    Place("listens", "interactions", _OF_KEY),
    Place("user", "users", _OF_ID),
)

#: Tables that hold nobody's data, and why.
NOBODYS = {
    "alembic_version": "which migrations were applied",
    "data_changes": "that something changed, not what",
    "dataset_info": "one row about the dataset",
    "feature_computations": "which windows were computed",
    "graph_batches": "how many calls were handed over together, not whose",
    "graph_runs": "when graphs were asked for, of whom, and what it printed: counts",
    "track_audio_features": "what tracks sound like",
    "track_popularity": "counts over everybody; those of past windows still count the listener",
    "tracks": "what is known of music, whoever brought it in",
}

#: Outside of Postgres, and who erases it.
OUTSIDE = {
    "online features": "musicrec.features.forgotten: keys of the dataset's project in Redis",
    "snapshots": "musicrec.sources.snapshots: folders of the home that training reads",
    "bundles and checkpoints": "nobody: weights cannot forget. The receipt names them",
    "pages and answers": "nobody: whoever asked for such a file knows where. The receipt says so",
}


def named_in_line(user_id: str) -> str:
    """A pattern (Postgres') of the id as a whole word in a line of CSV, JSON or plain text."""
    word = "".join(map(_spellings, user_id))
    return rf"(^|[^[:alnum:]_]|\\[bfnrt])({word})($|[^[:alnum:]_])"


def named_in_path(user_id: str) -> str:
    """A pattern (Postgres') of the id as a folder or a file, with or without its ending."""
    return rf"(^|[/\\:])({re.escape(user_id)})(?=$|[/\\:.])"


def _spellings(character: str) -> str:
    """One character as files write it: JSON has escapes, CSV doubles its quotes."""
    plain = re.escape(character)
    if character.isascii() and (character.isalnum() or character == "_"):
        return plain
    encoded = character.encode("utf-16-be", "surrogatepass").hex()
    units = [encoded[place : place + 4] for place in range(0, len(encoded), 4)]
    escapes = "".join(
        r"\\u" + "".join(f"[{d}{d.upper()}]" if d.isalpha() else d for d in unit) for unit in units
    )
    others = {'"': [r"\\\"", '""'], "\\": [r"\\\\"], "/": [r"\\/"]}
    others |= {"\t": [r"\\t"], "\n": [r"\\n"], "\r": [r"\\r"]}
    return f"(?:{'|'.join([*others.get(character, []), escapes, plain])})"
