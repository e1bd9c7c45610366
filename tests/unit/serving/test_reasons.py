"""Each reason is read back and checked against the evidence, counted anew in plain Python."""

from __future__ import annotations

import re
from collections import Counter
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from musicrec.interactions.catalogue import Catalogue
from musicrec.models.sasrec import SASRec
from musicrec.serving.listening import KEPT_PLAYS, listening_of_items
from musicrec.serving.pipeline import Chosen
from musicrec.serving.reasons import FEWEST, MOST, OFTEN, RECENT, Grounds, Reasons, Week

#: Tracks of the catalogue, and those of them that anybody played.
SIZE, PLAYED = 120, 30
NOW = datetime(2024, 3, 4, 18, tzinfo=UTC)
MIDNIGHT = NOW.replace(hour=0)


def micros(moment):
    return int(moment.timestamp()) * 1_000_000


def model(plays, **choices):
    """A model whose memory holds the transitions of ``plays``; its first items lie in pairs."""
    torch.manual_seed(1)
    made = SASRec(SIZE, max_length=8, dim=16, blocks=1, heads=2, **choices)
    made.remember(torch.tensor(plays[:-1]), torch.tensor(plays[1:]))
    with torch.no_grad():
        for item in (1, 3, 5):
            made.item_embedding.weight[item + 1] = made.item_embedding.weight[item] + 1e-4
    return made.eval()


_DRAW = np.random.default_rng(5)
#: Cycles of a few tracks, and noise: many follow each other five times and more.
HEARD = np.concatenate([np.tile([7, 8, 9, 7, 10], 8), _DRAW.integers(1, PLAYED + 1, 300)])
CATALOGUE = Catalogue(
    [f"id{item}" for item in range(1, SIZE + 1)],
    [None if item % 7 == 0 else f"T{item}" for item in range(1, SIZE + 1)],
    [None if item % 5 == 0 else f"A{item}" for item in range(1, SIZE + 1)],
    np.bincount(HEARD, minlength=SIZE + 1)[1:],
)
MODEL = model(HEARD)
REASONS = Reasons(CATALOGUE, MODEL)
ITEM_OF = {CATALOGUE.named(item): item for item in range(1, SIZE + 1)}


class Graph:
    """Interests that speak of even items."""

    def affinity(self, items):
        return np.zeros(len(items), np.float32)

    def neighbours(self, num):
        return np.empty(0, np.int64)

    def reason(self, item):
        return f"because of your listening to {item}" if item % 2 == 0 else None


def chosen(*items, sources=("sasrec",)):
    return [Chosen(item, 1.0, sources) for item in items]


def listening(*items, skipped=None, times=True, **more):
    stamps = np.array([micros(NOW - timedelta(days=d)) for d in range(len(items), 0, -1)], np.int64)
    skips = None if skipped is None else np.array(skipped, np.int8)
    return listening_of_items(np.array(items, np.int64), stamps if times else None, skips, **more)


def reasons(tracks, plays, model=REASONS, **grounds):
    return model.of(tracks, Grounds(plays, micros(NOW), **grounds))


ITEMS = st.integers(1, PLAYED + 1)
SOURCES = st.lists(
    st.sampled_from(("sasrec", "repeat", "popular", "graph", "explore")),
    min_size=1,
    max_size=4,
    unique=True,
)
PLAYS = st.lists(st.tuples(ITEMS, st.sampled_from((-1, 0, 1))), max_size=40)


@given(
    tracks=st.lists(st.tuples(ITEMS, SOURCES), max_size=12, unique_by=lambda track: track[0]),
    plays=PLAYS,
    times=st.booleans(),
    liked=st.sets(ITEMS, max_size=4),
    disliked=st.sets(ITEMS, max_size=4),
    has_graph=st.booleans(),
    listeners=st.lists(st.sampled_from((np.nan, 1, 4, 5, 1234)), min_size=12, max_size=12),
)
def test_every_reason_is_borne_out_by_the_evidence(
    tracks, plays, times, liked, disliked, has_graph, listeners
):
    items = [item for item, _ in plays]
    known = listening(
        *items, skipped=[s for _, s in plays], times=times, liked=liked, disliked=disliked
    )
    picked = [Chosen(item, 1.0, tuple(sources)) for item, sources in tracks]
    week = Week(np.array(listeners[: len(picked)], np.float32), np.full(12, micros(MIDNIGHT)))
    said = reasons(picked, known, interests=Graph() if has_graph else None, week=week)
    assert len(said) == len(picked)
    for place, track in enumerate(picked):
        assert 1 <= len(said[place]) <= MOST
        assert len(set(said[place])) == len(said[place])
        for reason in said[place]:
            check(reason, track, known, has_graph, listeners[place])


def check(reason, track, known, has_graph, listeners):
    kept = [
        (item, None if known.times is None else int(known.times[place]))
        for place, item in enumerate(known.items.tolist())
        if known.skipped[place] != 1
    ]
    recent = [*dict.fromkeys(i for i, _ in reversed(kept) if i not in known.disliked)][:RECENT]
    if reason == "you liked it":
        assert track.item in known.liked
    elif match := re.fullmatch(
        r"you played it (once|(\d+) times)(?:, (?:last )?on (\S+))?", reason
    ):
        own = [at for item, at in kept if item == track.item]
        assert len(own) == int(match[2] or 1)
        if known.times is None:
            assert match[3] is None
        else:
            assert datetime.fromtimestamp(own[-1] / 1e6, UTC).date().isoformat() == match[3]
    elif match := re.fullmatch(r"often played right after (.*) \((\d+) times by all.*\)", reason):
        before = ITEM_OF[match[1]]
        pairs = Counter(zip(HEARD[:-1].tolist(), HEARD[1:].tolist(), strict=True))
        times = pairs[before, track.item]
        total = sum(count for (one, _), count in pairs.items() if one == before)
        assert before in recent
        assert before != track.item
        assert times == int(match[2]) >= FEWEST
        assert times / total >= OFTEN * (track.item == HEARD).mean() * (1 - 1e-9)
    elif match := re.fullmatch(r"close to (.*), which you played", reason):
        near = ITEM_OF[match[1]]
        assert near in recent
        assert {near, track.item} in ({1, 2}, {3, 4}, {5, 6})
    elif reason.startswith("because of"):
        assert has_graph
        assert reason == Graph().reason(track.item)
    elif match := re.fullmatch(r"([\d,]+) listeners played it this week", reason):
        assert "popular" in track.sources
        assert int(match[1].replace(",", "")) == listeners >= FEWEST
    elif match := re.fullmatch(r"picked by the model from your last (?:(\d+) plays|play)", reason):
        assert int(match[1] or 1) == min(len(known), MODEL.max_length)
    elif match := re.fullmatch(r"played ([\d,]+) times by all listeners", reason):
        assert int(match[1]) == (track.item == HEARD).sum() >= FEWEST
    elif reason == "hardly anybody has played it yet":
        assert (track.item == HEARD).sum() < FEWEST
    else:
        assert reason == "drawn by chance, to find out whether you like it"
        assert "explore" in track.sources


def test_what_brought_a_track_in_is_said_first():
    plays = listening(2, 7, 8, liked=[8])
    (popular,) = reasons(
        chosen(8, sources=("popular", "sasrec", "repeat")),
        plays,
        week=Week(np.array([9.0], np.float32), np.array([micros(MIDNIGHT)])),
    )
    assert popular[0] == "9 listeners played it this week"
    assert popular[1].startswith("often played right after")
    assert popular[2] == "you liked it"
    (repeat,) = reasons(chosen(8, sources=("repeat", "sasrec")), plays)
    assert repeat[:2] == ("you liked it", "you played it once, on 2024-03-03")


def test_a_skipped_play_is_no_reason():
    skipped = listening(7, 7, skipped=[1, 1])
    (said,) = reasons(chosen(7, sources=("repeat",)), skipped)
    assert said == ("picked by the model from your last 2 plays",)
    (after,) = reasons(chosen(8), skipped)
    assert not after[0].startswith("often")


def test_a_play_that_the_request_itself_names_has_no_day():
    times = np.array([micros(NOW - timedelta(days=9)), micros(NOW)])
    plays = listening_of_items(np.array([7, 7]), times)
    assert reasons(chosen(7, sources=("repeat",)), plays)[0][0] == "you played it 2 times"


def test_a_track_follows_the_most_telling_of_the_recent_plays():
    # After 8 always came 9; after 7 it was 8 or 10.
    ((after,), (close,)) = reasons(chosen(9, 2), listening(1, 7, 8, 12))
    assert after.startswith("often played right after T8 by A8 (")
    assert close == "close to T1 by A1, which you played"


def test_following_often_is_a_matter_of_share_and_not_of_count():
    # 20 follows 21 forty times of 120, and 22 six times of six.
    others = [item for other in range(30, 110) for item in (21, other)]
    plays = np.array([21, 20] * 40 + [22, 20] * 6 + others + [*range(30, 100)] * 10)
    assert _after(20, [22, 21], plays) == "often played right after T22 by A22 (6 times by all"
    assert _after(20, [21], plays) == "often played right after a track of A21 (40 times by all"


def test_a_track_that_follows_everything_follows_nothing_often():
    plays = np.array([item for before in (1, 2, 3, 4) * 20 for item in (before, 20)])
    assert _after(20, [1, 2, 3], plays).startswith("picked by the model")


def test_a_track_on_end_does_not_follow_itself():
    plays = np.array([*range(1, 100), *[22] * 9])
    assert _after(22, [22], plays).startswith("you played it once")


def test_only_recent_plays_are_followed():
    plays = np.array([*range(30, 100), *[22, 20] * 6])
    newer = [*range(30, 30 + RECENT)]
    assert _after(20, [22, *newer[1:]], plays).startswith("often played right after")
    assert _after(20, [22, *newer], plays).startswith("picked by the model")


def test_a_disliked_track_is_nothing_to_go_by():
    plays = np.array([*range(30, 100), *[22, 20] * 6])
    assert _after(20, [22], plays, disliked=[22]).startswith("picked by the model")


def _after(item, played, heard, **more):
    """The first reason of an item, beside a model that has learnt from ``heard``."""
    counts = np.bincount(heard, minlength=SIZE + 1)[1:]
    catalogue = Catalogue(CATALOGUE.track_ids, CATALOGUE.titles, CATALOGUE.artists, counts)
    ((first, *_),) = reasons(
        chosen(item), listening(*played, **more), Reasons(catalogue, model(heard))
    )
    return first.removesuffix(" listeners)")


def test_what_few_others_did_is_not_said():
    week = Week(np.array([4.0], np.float32), np.array([micros(MIDNIGHT)]))
    (said,) = reasons(chosen(8, sources=("popular",)), listening(), week=week)
    assert said == (f"played {int((HEARD == 8).sum())} times by all listeners",)
    rare = Reasons(CATALOGUE, model(np.tile([20, 21], 4)))
    (after,) = reasons(chosen(21), listening(20), rare)
    assert after == ("picked by the model from your last play",)


def test_a_week_that_is_over_is_named_by_its_end():
    end = MIDNIGHT - timedelta(days=3)
    week = Week(np.array([50.0], np.float32), np.array([micros(end)]))
    (said,) = reasons(chosen(8, sources=("popular",)), listening(), week=week)
    assert said == ("50 listeners played it in the week before 2024-03-01",)


def test_of_more_plays_than_are_kept_the_count_says_of_how_many():
    long = listening(*[7] * (KEPT_PLAYS + 20))
    (said,) = reasons(chosen(7, sources=("repeat",)), long)
    assert said[0] == (
        f"you played it {KEPT_PLAYS} times in your last {KEPT_PLAYS} plays, last on 2024-03-03"
    )


def test_a_played_track_needs_no_reason_of_the_graph():
    played, new = reasons(chosen(12, 14, sources=("graph",)), listening(12), interests=Graph())
    assert played == ("you played it once, on 2024-03-03",)
    assert new[0] == "because of your listening to 14"


@pytest.mark.parametrize("choices", [{"transitions": 0}, {"similarity": "dot"}])
def test_a_model_without_memory_or_by_dot_products_gives_reasons_too(choices):
    other = Reasons(CATALOGUE, model(HEARD, **choices))
    said = reasons(chosen(2, 9), listening(1, 8), other)
    assert said[0] == ("close to T1 by A1, which you played",)
    assert said[1][0].startswith("picked" if "transitions" in choices else "often")


def test_a_catalogue_of_one_track_has_reasons():
    alone = Catalogue(["a"], [None], [None], np.array([0]))
    said = Reasons(alone, SASRec(1, max_length=4, dim=8, heads=2, transitions=2).eval()).of(
        chosen(1), Grounds(listening())
    )
    assert said == [("hardly anybody has played it yet",)]
