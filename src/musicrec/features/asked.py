"""What is asked for, by a feature service or by a request, and whether it makes sense."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

from musicrec.errors import FeatureError, nearest
from musicrec.features import context
from musicrec.features.context import Context
from musicrec.features.views import BY_NAME, STORED, View

#: Every view's features in the order of their definition: what a plan reads if not told otherwise.
EVERYTHING: Mapping[str, Sequence[str]] = {
    **{view.name: [feature.name for feature in view.features] for view in STORED},
    context.NAME: list(context.FEATURES),
}

MICROSECOND = timedelta(microseconds=1)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TEXTS = {str}


def check(features: Mapping[str, Sequence[str]]) -> None:
    """Raise FeatureError unless there are such views and features, and some are asked for."""
    if not any(features.values()):
        raise FeatureError("the feature service asks for no feature; give it some")
    for view, names in features.items():
        if view not in EVERYTHING:
            raise FeatureError(
                f"the feature service asks for the view {view!r}, which this version of musicrec "
                f"does not have{nearest(view, EVERYTHING)}; run feast apply, or update musicrec"
            )
        for name in names:
            if name not in EVERYTHING[view]:
                raise FeatureError(
                    f"the feature service asks for {view}:{name}, which this version of musicrec "
                    f"does not have{nearest(name, EVERYTHING[view])}; run feast apply, or update "
                    "musicrec"
                )


def with_inputs(asked: Mapping[View, list[str]]) -> dict[View, list[str]]:
    """What is asked for and what the context's features are computed from."""
    read = {view: list(names) for view, names in asked.items()}
    for column in context.STORED_INPUTS:
        view, _, name = column.partition("__")
        names = read.setdefault(BY_NAME[view], [])
        if name not in names:
            names.append(name)
    return read


def check_context(context: Context) -> None:
    """Raise FeatureError if a session cannot be compared with candidates."""
    session = context.session
    if session is not None and (
        isinstance(session, str) or not _TEXTS.issuperset(map(type, session))
    ):
        raise FeatureError(f"session={session!r:.100} is no list of track ids, which are text")


def wrong_ids(user_id: object, track_ids: object) -> FeatureError:
    """What to say of ids that cannot be looked up."""
    return FeatureError(
        f"user_id={user_id!r:.100}, track_ids={track_ids!r:.300}: give one text and a list of "
        "texts, none of them empty, all of them valid Unicode"
    )


def micros(as_of: datetime | None) -> float:
    """Since 1970; None is now."""
    if as_of is None:
        as_of = datetime.now(UTC)
    elif as_of.tzinfo is None:
        raise FeatureError(f"as_of={as_of} has no time zone; give it one, such as UTC")
    return float((as_of - _EPOCH) // MICROSECOND)
