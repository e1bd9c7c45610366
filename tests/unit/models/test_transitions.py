"""What the transition memory keeps, and that it never tells a token its own target."""

from collections import Counter

import torch
from hypothesis import given
from hypothesis import strategies as st

from musicrec.models.transitions import TransitionMemory, earlier

ITEMS = 10
pairs = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=60)


def memory(pairs, successors=3, *, use=(1.0, 1.0, 0.0)) -> TransitionMemory:
    """One that counts ``pairs`` and uses them alike for every token."""
    made = TransitionMemory(ITEMS - 1, successors, dim=4).eval()
    made.remember(*torch.tensor(pairs).T)
    with torch.no_grad():
        made.use.bias.copy_(torch.tensor(use))
    return made


@given(pairs)
def test_the_most_frequent_successors_are_kept_the_lower_index_first_among_equals(pairs):
    kept = memory(pairs)
    for item in range(ITEMS):
        followed = Counter(after for before, after in pairs if before == item)
        expected = sorted(followed.items(), key=lambda each: (-each[1], each[0]))[:3]
        found = zip(kept.successors[item].tolist(), kept.counts[item].tolist())
        assert [each for each in found if each[1]] == expected
        assert kept.totals[item] == followed.total()


def test_a_new_count_replaces_the_old_one():
    counted = memory([(1, 2), (1, 3), (4, 5)])
    counted.remember(torch.tensor([6]), torch.tensor([7]))
    assert counted.counts.sum() == 1
    assert counted.successors.sum() == 7


@given(pairs, st.data())
def test_a_learnt_transition_is_scored_as_if_it_had_not_been_counted(pairs, draw):
    own = draw.draw(st.sampled_from(pairs))
    others = list(pairs)
    others.remove(own)
    hidden, last = torch.zeros(1, 4), torch.tensor([own[0]])

    def dense(biases):
        return biases.add_to(torch.zeros(1, ITEMS))[0, 1:]

    with_own = memory(pairs, successors=ITEMS)(hidden, last, torch.tensor([own[1]]))
    if others:
        without = memory(others, successors=ITEMS)(hidden, last)
        torch.testing.assert_close(dense(with_own), dense(without))
    else:
        assert dense(with_own).abs().sum() == 0


def test_a_bias_is_the_logarithm_of_the_share_where_both_weights_are_one():
    biases = memory([(1, 2), (1, 2), (1, 2), (1, 5)])(torch.zeros(1, 4), torch.tensor([1]))
    scores = biases.add_to(torch.zeros(1, ITEMS))[0]
    assert torch.allclose(scores[[2, 5]].exp(), torch.tensor([0.75, 0.25]))


def test_most_tokens_train_without_it_and_none_answers_without_it():
    counted = memory([(1, 2)], use=(0.0, 0.0, 1.0))
    hidden, last = torch.zeros(4000, 4), torch.ones(4000, dtype=torch.int64)
    assert (counted(hidden, last).values[:, 0] == 1).all()
    torch.manual_seed(0)
    share = counted.train()(hidden, last).values[:, 0].mean().item()
    assert abs(share - 0.2) < 0.03


def test_an_untrained_one_changes_no_score():
    untrained = TransitionMemory(ITEMS - 1, 3, dim=4)
    untrained.remember(torch.tensor([1]), torch.tensor([2]))
    assert untrained(torch.randn(5, 4), torch.ones(5, dtype=torch.int64)).values.abs().sum() == 0


def test_an_earlier_item_is_of_the_same_window_or_none():
    items = torch.tensor([5, 6, 7, 8, 9])  # windows of three and two
    position = torch.tensor([0, 1, 2, 0, 1])
    assert earlier(items, position, 0).tolist() == [5, 6, 7, 8, 9]
    assert earlier(items, position, 1).tolist() == [0, 5, 6, 0, 8]
    assert earlier(items, position, 2, rows=torch.tensor([2, 4])).tolist() == [5, 0]
