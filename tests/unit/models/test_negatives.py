"""Negatives stand for the catalogue: in expectation, whatever proposal they are drawn by."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from musicrec.errors import ConfigError, DataError
from musicrec.models.negatives import Proposal


@pytest.fixture
def play_counts():
    """Fifty items, a few of them most of the plays, some without any; padding's must not count."""
    counts = torch.tensor([999] + [1000 // rank**2 for rank in range(1, 51)])
    counts[20:30] = 0
    return counts


@pytest.mark.parametrize("uniform_share", [0.1, 0.5, 1.0])
def test_items_are_drawn_as_often_as_the_correction_expects(play_counts, uniform_share):
    proposal = Proposal(play_counts, uniform_share)
    torch.manual_seed(0)
    drawn, rounds, num_negatives = torch.zeros(51), 4_000, 16
    for _ in range(rounds):
        items, correction = proposal.draw(num_negatives)
        drawn[items] += correction.exp()  # times drawn / times expected: 1 on average
    assert drawn[0] == 0
    # q of the rarest is uniform_share / 50, drawn about 130 times: a spread of .09.
    assert torch.allclose(drawn[1:] / rounds, torch.ones(50), atol=0.4)
    assert (drawn[1:] / rounds).mean().item() == pytest.approx(1, abs=0.02)


@given(
    plays=st.lists(st.integers(0, 10**12), min_size=1, max_size=60).filter(any),
    uniform_share=st.floats(0.01, 1),
    num_negatives=st.integers(1, 300),
    seed=st.integers(0, 99),
)
def test_negatives_are_distinct_rising_items_and_never_padding(
    plays, uniform_share, num_negatives, seed
):
    torch.manual_seed(seed)
    items, correction = Proposal(torch.tensor([0, *plays]), uniform_share).draw(num_negatives)
    assert items.min() >= 1
    assert items.max() <= len(plays)
    assert (items.diff() > 0).all()
    assert len(items) <= num_negatives
    assert correction.isfinite().all()


def test_as_many_uniform_draws_as_items_take_every_item_once():
    torch.manual_seed(0)
    items, correction = Proposal(torch.ones(41), uniform_share=1).draw(40)
    assert items.tolist() == list(range(1, 41))
    assert correction.abs().max() < 1e-6


def test_a_popular_item_is_drawn_about_its_share_of_the_time():
    # 60 % of the plays and half the draws by plays: 30 or so of 100 draws, never 0 and never 60.
    proposal = Proposal(torch.tensor([0, 600, *[1] * 400]), uniform_share=0.5)
    torch.manual_seed(0)
    for _ in range(100):
        items, correction = proposal.draw(100)
        assert items[0] == 1
        assert correction[0].exp().item() == pytest.approx(1, abs=0.05)


def test_equal_seeds_draw_equal_negatives(play_counts):
    proposal = Proposal(play_counts, 0.5)
    torch.manual_seed(3)
    first = proposal.draw(8).items
    torch.manual_seed(3)
    assert torch.equal(proposal.draw(8).items, first)
    assert not torch.equal(proposal.draw(8).items, first)


def test_a_tokens_own_target_alone_is_masked(play_counts):
    torch.manual_seed(0)
    negatives = Proposal(play_counts, 0.5).draw(16)
    target = torch.arange(1, 51)
    masked = negatives.mask(torch.zeros(50, len(negatives.items)), target)
    assert torch.equal(masked.exp() == 0, target[:, None] == negatives.items)


@pytest.mark.parametrize("uniform_share", [0.0, -0.5, 1.5])
def test_a_share_that_is_none_is_refused(play_counts, uniform_share):
    with pytest.raises(ConfigError, match=rf"loss\.uniform_share={uniform_share}"):
        Proposal(play_counts, uniform_share)


@pytest.mark.parametrize("plays", [[5], [5, 0, 0]])
def test_a_catalogue_without_plays_is_refused(plays):
    with pytest.raises(DataError, match="no plays"):
        Proposal(torch.tensor(plays), 0.5)
