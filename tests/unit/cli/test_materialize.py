"""What is asked of materialize is understood, or refused in one line, before anything runs."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from musicrec.cli.compose import compose
from musicrec.cli.flags import MATERIALIZE, translate
from musicrec.cli.materialize import chosen_views, materialize
from musicrec.cli.moments import moment
from musicrec.errors import ConfigError
from musicrec.features.views import STORED


def names_of(*arguments: str) -> list[str]:
    config = compose("materialize", translate(arguments, MATERIALIZE))
    return [view.name for view in chosen_views(config.views)]


EVERY = [view.name for view in STORED]
TWO = ["user_listening_stats", "track_popularity"]


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["--all"], EVERY),
        ([], EVERY),
        (["--views", "track_popularity,user_listening_stats"], TWO),
        (["--views=user_listening_stats,track_popularity"], TWO),
        (["views=[track_popularity, user_listening_stats]"], TWO),
        (["views=track_popularity"], ["track_popularity"]),
    ],
)
def test_views_may_be_named_in_any_of_these_ways(arguments, names):
    assert names_of(*arguments) == names


def test_all_takes_no_value():
    with pytest.raises(ConfigError, match="--all takes no value"):
        translate(["--all=user_listening_stats"], MATERIALIZE)


def test_an_unknown_view_names_the_nearest():
    with pytest.raises(ConfigError, match=r"views=trakc_popularity.*did you mean 'track_popular"):
        names_of("--views", "user_listening_stats,trakc_popularity")


def test_no_view_at_all_is_refused():
    with pytest.raises(ConfigError, match="names no view"):
        names_of("views=[]")


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("2022-04-26", datetime(2022, 4, 26, tzinfo=UTC)),
        ("2022-04-26T13:00", datetime(2022, 4, 26, 13, tzinfo=UTC)),
        ("2022-04-26 13:00:00Z", datetime(2022, 4, 26, 13, tzinfo=UTC)),
        ("2022-04-26T13:00+08:00", datetime(2022, 4, 26, 5, tzinfo=UTC)),
    ],
)
def test_a_moment_without_a_zone_is_of_utc(text, meant):
    config = compose("materialize", translate(["--as-of", text], MATERIALIZE))
    assert moment("as_of", config.as_of) == meant
    assert moment("as_of", config.as_of).tzinfo


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("as_of=yesterday", "as_of=yesterday is no ISO date or time"),
        ("as_of=9000-01-01", "as_of=9000-01-01 lies in the future"),
        ("backfill=26.04.2022", "backfill=26.04.2022 is no ISO date or time"),
        ("cadence_hours=5", "does not divide the day"),
        ("cadence_hours=null", "cadence_hours=null is no number"),
        ("as_of='0001-01-01T00:00+14:00'", "before the year 1"),
        ("dataset=null", "which dataset"),
    ],
)
def test_a_mistake_is_named_before_any_server_is_asked(override, said):
    with pytest.raises(ConfigError, match=said) as error:
        materialize(compose("materialize", ["dataset=mine", override]))
    assert "\n" not in str(error.value)
