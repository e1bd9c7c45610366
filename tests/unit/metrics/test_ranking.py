import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from musicrec.metrics.ranking import (
    RankingMetrics,
    hit_rate,
    means,
    metric_names,
    ndcg,
    reciprocal_rank,
    target_rank,
)

ranks = st.lists(st.integers(1, 10_000), min_size=1, max_size=20).map(torch.tensor)
cutoffs = st.integers(1, 100)


@st.composite
def rankings(draw):
    """Scores from few distinct values, so that ties are common; column 0 is padding."""
    batch, items = draw(st.integers(1, 6)), draw(st.integers(2, 30))
    cells = draw(
        st.lists(
            st.lists(st.integers(-3, 3), min_size=items, max_size=items),
            min_size=batch,
            max_size=batch,
        )
    )
    scores = torch.tensor(cells, dtype=torch.float32)
    scores[:, 0] = float("-inf")
    target = draw(st.lists(st.integers(1, items - 1), min_size=batch, max_size=batch))
    return scores, torch.tensor(target)


def reference_rank(scores: list[float], target: int) -> int:
    """Sort by score, the target last among its equals, and count; no arithmetic shared."""
    order = sorted(range(len(scores)), key=lambda item: (-scores[item], item == target))
    return order.index(target) + 1


@given(rankings())
def test_target_rank_equals_the_place_in_a_sorted_list(case):
    scores, target = case
    expected = [reference_rank(row, t) for row, t in zip(scores.tolist(), target.tolist())]
    assert target_rank(scores, target).tolist() == expected


@given(rankings(), st.integers(1, 30))
def test_ndcg_and_hit_rate_equal_a_plain_computation(case, k):
    scores, target = case
    rank = target_rank(scores, target)
    for row, t, n, h in zip(
        scores.tolist(), target.tolist(), ndcg(rank, k).tolist(), hit_rate(rank, k).tolist()
    ):
        place = reference_rank(row, t)
        gain = [1.0 if position == place else 0.0 for position in range(1, k + 1)]
        dcg = sum(g / math.log2(position + 1) for position, g in enumerate(gain, start=1))
        assert n == pytest.approx(dcg)  # the ideal DCG is 1
        assert h == sum(gain)


def test_constant_model_ranks_the_target_last():
    assert target_rank(torch.zeros(1, 50), torch.tensor([7])).item() == 50


def test_an_excluded_target_is_a_miss_however_small_the_catalogue():
    scores = torch.tensor([[float("-inf"), 1.0, float("-inf"), 0.0]])
    rank = target_rank(scores, torch.tensor([2]))
    assert hit_rate(rank, 100) == ndcg(rank, 100) == 0
    assert reciprocal_rank(rank) < 1e-9


@pytest.mark.parametrize("place", [0, 3])
def test_nan_is_refused(place):
    scores = torch.zeros(2, 5)
    scores[:, 0] = float("-inf")
    scores[1, place] = float("nan")
    with pytest.raises(ValueError, match="NaN"):
        target_rank(scores, torch.tensor([1, 2]))


@given(ranks, cutoffs)
def test_ndcg_never_exceeds_hit_rate(rank, k):
    assert (ndcg(rank, k) <= hit_rate(rank, k)).all()


@given(ranks, cutoffs)
def test_metrics_lie_between_zero_and_one(rank, k):
    for values in (ndcg(rank, k), hit_rate(rank, k), reciprocal_rank(rank)):
        assert ((values >= 0) & (values <= 1)).all()


@given(ranks, cutoffs)
def test_a_longer_list_never_lowers_a_metric(rank, k):
    assert (ndcg(rank, k + 1) >= ndcg(rank, k)).all()
    assert (hit_rate(rank, k + 1) >= hit_rate(rank, k)).all()


def random_batch(batch: int = 40, items: int = 200):
    generator = torch.Generator().manual_seed(5)
    scores = torch.rand(batch, items, generator=generator)
    scores[:, 0] = float("-inf")
    target = torch.randint(1, items, (batch,), generator=generator)
    return scores, target, torch.rand(batch, generator=generator) < 0.5


def test_batching_does_not_change_the_metrics():
    scores, target, repeat = random_batch()
    whole, parts = RankingMetrics(199), RankingMetrics(199)
    whole.update(scores, target, repeat)
    for part in range(0, 40, 7):
        rows = slice(part, part + 7)
        parts.update(scores[rows], target[rows], repeat[rows])
    assert whole.compute() == parts.compute()


def test_repeats_and_explorations_are_judged_apart():
    ranks = torch.tensor([1, 1, 50])
    values = means(ranks, torch.tensor([True, True, False]))
    assert values["repeat/hit_rate_10"] == 1
    assert values["explore/hit_rate_10"] == 0
    assert values["hit_rate_10"] == pytest.approx(2 / 3)
    assert values["repeat_share"] == pytest.approx(2 / 3)


def test_a_group_without_targets_is_absent_rather_than_zero():
    assert "explore/ndcg_10" not in means(torch.tensor([1]), torch.tensor([True]))


def test_what_is_excluded_is_not_covered():
    metrics = RankingMetrics(3)
    scores = torch.tensor([[float("-inf"), 1.0, float("-inf"), 0.0]])
    metrics.update(scores, torch.tensor([1]), torch.tensor([False]))
    assert metrics.compute()["coverage_10"] == 2 / 3


def test_every_metric_has_a_known_name():
    metrics = RankingMetrics(199)
    metrics.update(*random_batch())
    assert sorted(metrics.compute()) == sorted(metric_names())


def test_coverage_counts_the_tracks_of_all_top_tens():
    metrics = RankingMetrics(40)
    scores = torch.zeros(2, 41)
    scores[:, 0] = float("-inf")
    scores[0, 1:11] = 1
    scores[1, 6:16] = 1
    metrics.update(scores, torch.tensor([1, 1]), torch.tensor([False, False]))
    assert metrics.compute()["coverage_10"] == 15 / 40
