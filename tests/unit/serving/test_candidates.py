"""Which tracks are looked at, and which never are."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from musicrec.features.context import Context
from musicrec.serving import candidates as stage
from musicrec.serving.candidates import Proposals, Scored
from musicrec.serving.listening import KEPT_PLAYS, listening_of_items
from musicrec.serving.moment import moment_of

NOW = datetime(2024, 3, 4, 18, tzinfo=UTC)
AT = int(NOW.timestamp()) * 1_000_000
MINUTE = 60_000_000

items = st.integers(1, 120)
lists = st.lists(items, max_size=60)


def ints(values) -> np.ndarray:
    return np.array(list(values), np.int64)


def listening(played, *, skipped=None, minutes_apart=5, **more):
    """Plays that end five minutes ago."""
    times = AT - MINUTE * minutes_apart * np.arange(len(played), 0, -1)
    skips = None if skipped is None else np.array(skipped, np.int8)
    return listening_of_items(ints(played), times, skips, **more)


def moment(of):
    return moment_of(of, NOW, Context())


def banned(of, *, exclude=(), seen="keep"):
    return stage.banned_of(of, moment(of), exclude=exclude, seen=seen)


def answered(of, scores, *, popular=(), neighbours=(), exclude=(), seen="keep", num=100, k=10):
    """The candidates of a listener, and what was banned."""
    out = banned(of, exclude=exclude, seen=seen)
    proposals = stage.proposals_of(
        of, out, seen=seen, popular=ints(popular), neighbours=ints(neighbours)
    )
    scored = stage.scored(torch.tensor(scores, dtype=torch.float32), out, proposals, num)
    return stage.candidates_of(scored, proposals, num, k), out


@given(
    played=lists,
    liked=st.frozensets(items, max_size=5),
    disliked=st.frozensets(items, max_size=5),
    exclude=lists,
    popular=lists,
    neighbours=lists,
    seen=st.sampled_from(["keep", "drop"]),
    num=st.integers(50, 130),
    k=st.integers(1, 60),
    seed=st.integers(0, 100),
    levels=st.sampled_from([3, 1000]),
)
def test_candidates_are_distinct_allowed_and_hold_the_best_of_the_model(
    played, liked, disliked, exclude, popular, neighbours, seen, num, k, seed, levels
):
    num = max(num, 2 * k)  # as Pipeline.num_best asks
    scores = np.random.default_rng(seed).integers(0, levels, 121).astype(np.float32)
    of = listening(played, liked=liked, disliked=disliked)
    popular, neighbours = dict.fromkeys(popular), dict.fromkeys(neighbours)
    found, out = answered(
        of,
        scores,
        popular=popular,
        neighbours=neighbours,
        exclude=exclude,
        seen=seen,
        num=num,
        k=k,
    )
    allowed = [item for item in range(1, 121) if item not in out]
    assert len({*found.items.tolist()}) == len(found.items)
    assert {*found.items.tolist()} <= {*allowed}
    assert not {*found.items.tolist()} & ({0, *exclude} | disliked)
    if seen == "drop":
        assert not {*found.items.tolist()} & {*played}
    best = sorted(allowed, key=lambda item: (-scores[item], item))
    certain = best[: max(50, k)]
    assert {*certain} <= {*found.items.tolist()}
    assert found.items[:k].tolist() == best[:k]
    assert found.scores.tolist() == [scores[item] for item in found.items]
    assert [*found.items] == sorted(found.items, key=lambda item: (-scores[item], item))
    assert len(found.items) >= min(num, len(allowed))
    assert len(found.items) <= max(num, max(50, k) + 50)


@given(
    scores=st.lists(st.integers(-3, 3), min_size=1, max_size=90),
    num=st.integers(1, 100),
    seed=st.integers(0, 3),
)
def test_equal_scores_go_by_index_also_across_the_border(scores, num, seed):
    values = torch.tensor(scores, dtype=torch.float32)
    values[torch.rand(len(values), generator=torch.Generator().manual_seed(seed)) < 0.2] = -np.inf
    best, found = stage.best_of(values, num)
    known = [item for item in range(len(scores)) if values[item] != -np.inf]
    expected = sorted(known, key=lambda item: (-values[item].item(), item))[:num]
    assert best.tolist() == expected
    assert found.tolist() == [values[item].item() for item in expected]


@pytest.mark.parametrize("levels", [4, 10**6])
def test_the_best_of_a_large_catalogue_are_those_of_a_sort(levels):
    draw = torch.Generator().manual_seed(1)
    for size in (1 << 15, 70_001):
        scores = torch.randint(0, levels, (size,), generator=draw).float()
        best, _ = stage.best_of(scores, 120)
        order = np.lexsort((np.arange(size), -scores.numpy()))
        assert best.tolist() == order[:120].tolist()


def test_each_source_gives_its_share_and_is_named():
    of = listening([100, 101, 100])
    scores = np.arange(121, 0, -1.0)  # the model likes low numbers
    found, _ = answered(of, scores, popular=range(80, 100), neighbours=range(50, 80), num=100)
    sources = {int(item): found.sources_of(n) for n, item in enumerate(found.items)}
    assert sources[100] == ("repeat",)
    assert [item for item in sources if "popular" in sources[item]] == [*range(80, 90)]
    assert [item for item in sources if "graph" in sources[item]] == [*range(50, 70)]
    assert sources[1] == ("sasrec",)
    assert sources[50] == ("sasrec", "graph")
    assert len(sources) == 100


def test_banned_tracks_leave_their_places_to_the_next():
    of = listening([5], disliked=[80])
    found, _ = answered(
        of, np.zeros(121), popular=range(80, 100), neighbours=[7, 8], exclude=[81, 7]
    )
    named = {int(item): found.sources_of(n) for n, item in enumerate(found.items)}
    assert [item for item in named if "popular" in named[item]] == [*range(82, 92)]
    assert [item for item in named if "graph" in named[item]] == [8]


def test_what_is_played_often_or_lately_is_a_repeat_before_others():
    often_long_ago = [1] * 4 + [9] * 0 + [*range(20, 80)]
    of = listening([*often_long_ago, 2])
    assert stage.repeats_of(of, ints([0]))[:2].tolist() == [1, 2]
    long_ago = listening([1, *range(20, 120), 2])
    order = stage.repeats_of(long_ago, ints([0])).tolist()
    assert order[0] == 2
    assert 1 not in order
    assert len(order) == stage.REPEATS


def test_a_like_counts_as_a_play_of_just_now():
    of = listening([*range(20, 60)], liked=[7])
    assert stage.repeats_of(of, ints([0]))[0] == 7


def test_nobody_is_proposed_repeats_where_heard_tracks_are_dropped():
    of = listening([4, 4, 5])
    proposals = stage.proposals_of(of, banned(of, seen="drop"), seen="drop")
    assert proposals.items.tolist() == []


def test_a_track_skipped_in_the_running_session_is_banned_for_the_rest_of_it():
    of = listening([1, 2, 3], skipped=[1, -1, 1])
    assert banned(of).tolist() == [0, 1, 3]
    of = listening([1, 2, 3], skipped=[1, -1, 1], minutes_apart=30)
    assert banned(of).tolist() == [0]  # each was a session of its own, and all are over
    skips = np.array([1, 0, 0], np.int8)
    times = AT - MINUTE * np.array([60, 20, 1])
    assert banned(listening_of_items(ints([1, 2, 3]), times, skips)).tolist() == [0]


def test_of_a_long_history_the_newest_plays_are_kept_and_all_heard_is_known():
    of = listening([*range(1, 101)] * 6)
    assert len(of) == KEPT_PLAYS
    assert of.items[-1] == 100
    assert len(of.times) == len(of.skipped) == KEPT_PLAYS
    assert of.heard.tolist() == [*range(1, 101)]


def test_more_than_asked_come_where_the_best_would_be_too_few():
    scored = Scored(ints(range(1, 61)), np.arange(60, 0, -1.0), np.zeros(50))
    proposals = Proposals(ints(range(61, 111)), np.full(50, 2, np.uint8))
    assert len(stage.candidates_of(scored, proposals, 60, 10).items) == 100
