"""Lazy rows: AdamW where the gradient is dense, SparseAdam where it is sparse, resumable."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from torch import nn
from torch.nn.functional import embedding
from torch.nn.utils import clip_grad_norm_, clip_grad_value_
from torch.optim import AdamW, SparseAdam

from musicrec.training.optimizer import LazyRowsAdamW

SETTINGS = {"lr": 0.05, "betas": (0.9, 0.98)}


class Scorer(nn.Module):
    """A table that is read twice, as items are: on the way in and in the loss."""

    def __init__(self, sparse: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(30, 4, padding_idx=0, sparse=sparse)
        self.linear = nn.Linear(4, 4)

    def loss(self, items, targets) -> torch.Tensor:
        against = embedding(targets, self.table.weight, sparse=self.table.sparse)
        return (self.linear(self.table(items)) - against).square().sum()


def lazy(scorer: Scorer, **settings) -> LazyRowsAdamW:
    groups = [
        {"params": [scorer.linear.weight], "weight_decay": 0.1},
        {"params": [scorer.linear.bias, scorer.table.weight], "weight_decay": 0.0},
    ]
    return LazyRowsAdamW(groups, scorer.table.weight, **(SETTINGS | settings))


def batch(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(step)
    items, targets = torch.randint(1, 20, (2, 6), generator=generator)
    return items, targets


def train(scorer: Scorer, optimizers, steps) -> None:
    for step in steps:
        scorer.zero_grad()
        scorer.loss(*batch(step)).backward()
        for optimizer in optimizers:
            optimizer.step()


def test_it_is_adamw_for_dense_weights_and_sparse_adam_for_the_table():
    ours, theirs = Scorer(), Scorer()
    train(ours, [lazy(ours)], range(25))
    dense = AdamW(
        [
            {"params": [theirs.linear.weight], "weight_decay": 0.1},
            {"params": [theirs.linear.bias], "weight_decay": 0.0},
        ],
        fused=True,
        **SETTINGS,
    )
    train(theirs, [dense, SparseAdam([theirs.table.weight], **SETTINGS)], range(25))
    for one, other in zip(ours.parameters(), theirs.parameters()):
        assert torch.allclose(one, other, atol=1e-6)


def test_where_every_row_is_touched_it_is_dense_adam():
    ours, theirs = Scorer(sparse=True), Scorer(sparse=False)
    dense = AdamW(theirs.parameters(), weight_decay=0.0, **SETTINGS)
    sparse = LazyRowsAdamW(
        [{"params": list(ours.parameters()), "weight_decay": 0.0}], ours.table.weight, **SETTINGS
    )
    items = torch.arange(1, 30)
    for step in range(10):
        for scorer, optimizer in ((ours, sparse), (theirs, dense)):
            scorer.zero_grad()
            scorer.loss(items, items.roll(step)).backward()
            optimizer.step()
    for one, other in zip(ours.parameters(), theirs.parameters()):
        assert torch.allclose(one, other, atol=1e-5)


def test_rows_that_the_step_does_not_hold_stay_as_they_are_bit_by_bit():
    scorer = Scorer()
    optimizer = lazy(scorer)
    train(scorer, [optimizer], range(5))
    weight, state = scorer.table.weight, optimizer.state[scorer.table.weight]
    before = [copy.deepcopy(each.detach()) for each in (weight, state["exp_avg"])]
    scorer.zero_grad()
    scorer.loss(torch.tensor([3]), torch.tensor([8])).backward()
    optimizer.step()
    untouched = [row for row in range(30) if row not in (3, 8)]
    for then, now in zip(before, (weight, state["exp_avg"])):
        assert torch.equal(then[untouched], now[untouched])
        assert not torch.equal(then[[3, 8]], now[[3, 8]])


def test_its_state_goes_through_a_safe_checkpoint_and_trains_on_bit_by_bit():
    whole, first, second = Scorer(), Scorer(), Scorer()
    train(whole, [lazy(whole)], range(20))
    optimizer = lazy(first)
    train(first, [optimizer], range(9))
    file = io.BytesIO()
    torch.save((first.state_dict(), optimizer.state_dict()), file)
    file.seek(0)
    weights, state = torch.load(file, weights_only=True)
    second.load_state_dict(weights)
    resumed = lazy(second)
    resumed.load_state_dict(state)
    train(second, [resumed], range(9, 20))
    for one, other in zip(second.parameters(), whole.parameters()):
        assert torch.equal(one, other)


def test_accumulated_gradients_make_one_step():
    once, twice = Scorer(), Scorer()
    (a, b), (c, d) = batch(1), batch(2)
    optimizer = lazy(once)
    once.loss(torch.cat([a, c]), torch.cat([b, d])).backward()
    optimizer.step()
    optimizer = lazy(twice)
    twice.loss(a, b).backward()
    twice.loss(c, d).backward()
    optimizer.step()
    for one, other in zip(once.parameters(), twice.parameters()):
        assert torch.allclose(one, other, atol=1e-6)


@pytest.mark.parametrize(
    ("algorithm", "theirs"), [("norm", clip_grad_norm_), ("value", clip_grad_value_)]
)
@pytest.mark.parametrize("limit", [0.01, 1e6])
def test_clipping_equals_torchs_on_dense_gradients(algorithm, theirs, limit):
    sparse, dense = Scorer(sparse=True), Scorer(sparse=False)
    for scorer in (sparse, dense):
        scorer.loss(*batch(0)).backward()
    lazy(sparse).clip(limit, algorithm)
    theirs(dense.parameters(), limit)
    for one, other in zip(sparse.parameters(), dense.parameters()):
        assert torch.allclose(one.grad.to_dense(), other.grad, rtol=1e-4)


def test_a_closure_gives_the_gradients_and_its_loss_comes_back():
    one, other = Scorer(), Scorer()
    optimizer = lazy(one)

    def closure() -> torch.Tensor:
        loss = one.loss(*batch(0))
        loss.backward()
        return loss

    loss = optimizer.step(closure)
    assert loss.item() == pytest.approx(other.loss(*batch(0)).item())
    train(other, [lazy(other)], [0])
    assert torch.equal(one.table.weight, other.table.weight)
