"""Sampled softmax is an estimate of the full one, value and gradient."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from musicrec.errors import ConfigError
from musicrec.models.losses import SampledSoftmax

ITEMS = 31


@pytest.fixture
def case():
    generator = torch.Generator().manual_seed(2)
    hidden = torch.randn(23, 8, generator=generator, dtype=torch.float64)
    embedding = torch.randn(ITEMS, 8, generator=generator, dtype=torch.float64) * 0.5
    target = torch.randint(1, ITEMS, (23,), generator=generator)
    return hidden.requires_grad_(), target, embedding.requires_grad_()


def full(hidden, target, embedding):
    """Value and gradients of the full cross-entropy, by the book."""
    logits = (hidden @ embedding.T).index_fill(1, torch.tensor(0), float("-inf"))
    loss = cross_entropy(logits, target, reduction="sum")
    return loss.detach(), *torch.autograd.grad(loss, [hidden, embedding])


def sampled(loss, hidden, target, embedding):
    total = loss(hidden, target, embedding)
    by_hidden, by_embedding = torch.autograd.grad(total, [hidden, embedding])
    return total.detach(), by_hidden, by_embedding.to_dense()


def plays():
    return torch.tensor([0] + [400 // rank for rank in range(1, ITEMS)])


def test_with_every_item_a_negative_once_it_is_the_full_one(case):
    torch.manual_seed(0)
    loss = SampledSoftmax(ITEMS - 1, uniform_share=1).propose(plays())
    for ours, theirs in zip(sampled(loss, *case), full(*case)):
        assert torch.allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize("uniform_share", [0.2, 0.5, 1.0])
def test_with_many_draws_it_comes_to_the_full_one_by_any_proposal(case, uniform_share):
    torch.manual_seed(0)
    loss = SampledSoftmax(20_000, uniform_share).propose(plays())
    for ours, theirs in zip(sampled(loss, *case), full(*case)):
        assert torch.allclose(ours, theirs, rtol=1e-3, atol=2e-3)


@pytest.mark.parametrize("uniform_share", [0.2, 0.5, 1.0])
def test_few_draws_averaged_come_near_the_full_gradient_and_nearer_with_more(case, uniform_share):
    # Not quite to it: the logarithm of an unbiased sum is itself biased, by O(1 / negatives).
    torch.manual_seed(0)
    away = {}
    for num_negatives in (6, 24):
        loss = SampledSoftmax(num_negatives, uniform_share).propose(plays())
        rounds = [sampled(loss, *case) for _ in range(400)]
        averages = (torch.stack(each).mean(0) for each in zip(*rounds))
        away[num_negatives] = [
            ((ours - theirs).norm() / theirs.norm()).item()
            for ours, theirs in zip(averages, full(*case))
        ]
    assert max(away[24]) < 0.06
    assert all(more < few / 2 for few, more in zip(away[6], away[24]))


def test_correcting_the_targets_logit_too_would_miss_the_full_one(case):
    hidden, target, embedding = case
    torch.manual_seed(0)
    loss = SampledSoftmax(20_000, 0.2).propose(plays())
    negatives = loss.proposal.draw(20_000)
    share = loss.proposal.cumulative.diff()[target - 1]
    positive = (hidden * embedding[target]).sum(1) - (share * 20_000).log()
    logits = hidden @ embedding[negatives.items].T + negatives.correction
    rest = negatives.mask(logits, target).logsumexp(1)
    both = (torch.logaddexp(positive, rest) - positive).sum().item()
    expected = full(*case)[0].item()
    assert loss(*case).item() == pytest.approx(expected, rel=1e-3)
    assert both > expected * 1.5


def test_a_negative_that_is_the_target_does_not_count():
    # With the target the only item ever drawn, nothing stands against it.
    embedding = torch.tensor([[0.0], [1.0], [1.0]], requires_grad=True)
    loss = SampledSoftmax(1, uniform_share=1e-9).propose(torch.tensor([0, 10**9, 0]))
    total = loss(torch.ones(2, 1), torch.tensor([1, 1]), embedding)
    total.backward()
    assert total.item() == 0
    assert embedding.grad.to_dense().abs().sum() == 0


def test_the_items_gradient_holds_the_rows_of_the_step_alone(case):
    hidden, target, embedding = case
    loss = SampledSoftmax(4).propose(plays())
    torch.manual_seed(0)
    negatives = loss.proposal.draw(4).items
    torch.manual_seed(0)
    loss(hidden, target, embedding).backward()
    assert embedding.grad.is_sparse
    rows = embedding.grad.coalesce().indices()[0]
    assert set(rows.tolist()) == set(target.tolist()) | set(negatives.tolist())


def test_a_share_of_a_batch_without_tokens_costs_nothing(case):
    hidden, target, embedding = case
    loss = SampledSoftmax(4).propose(plays())(hidden[:0], target[:0], embedding)
    loss.backward()
    assert loss.item() == 0
    assert embedding.grad.to_dense().abs().sum() == 0


def test_rows_beyond_the_catalogue_are_never_drawn(case):
    hidden, target, embedding = case
    wide = torch.cat([embedding.detach(), torch.full((17, 8), 1e9, dtype=torch.float64)])
    loss = SampledSoftmax(200).propose(plays())
    torch.manual_seed(0)
    expected = loss(hidden, target, embedding)
    torch.manual_seed(0)
    assert torch.equal(loss(hidden, target, wide), expected)


def test_without_plays_to_draw_by_it_says_what_is_missing(case):
    with pytest.raises(ValueError, match="call propose"):
        SampledSoftmax(4)(*case)


@pytest.mark.parametrize("settings", [{"num_negatives": 0}, {"uniform_share": 0.0}])
def test_nonsense_settings_are_refused(settings):
    with pytest.raises(ConfigError, match=r"loss\."):
        SampledSoftmax(**settings).propose(plays())
