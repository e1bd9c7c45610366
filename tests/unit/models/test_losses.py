import pytest
import torch
from torch.nn.functional import cross_entropy, logsigmoid

from musicrec.errors import ConfigError
from musicrec.models.biases import Biases
from musicrec.models.full_cross_entropy import FullCrossEntropy
from musicrec.models.losses import BCE, GBCE, SampledSoftmax

ROWS = 51  # fifty items and padding
LOSSES = [FullCrossEntropy(), SampledSoftmax(20).propose(torch.ones(ROWS)), BCE(), GBCE(20)]


@pytest.fixture
def case():
    generator = torch.Generator().manual_seed(2)
    hidden = torch.randn(37, 8, generator=generator, dtype=torch.float64)
    embedding = torch.randn(ROWS, 8, generator=generator, dtype=torch.float64)
    target = torch.randint(1, ROWS, (37,), generator=generator)
    return hidden.requires_grad_(), target, embedding.requires_grad_()


@pytest.mark.parametrize("chunk_tokens", [1, 10, 37, 1000])
def test_full_cross_entropy_and_its_gradient_equal_torchs(case, chunk_tokens):
    hidden, target, embedding = case
    logits = (hidden @ embedding.T).index_fill(1, torch.tensor(0), float("-inf"))
    expected = cross_entropy(logits, target, reduction="sum")
    expected_gradients = torch.autograd.grad(expected * 3, [hidden, embedding])
    loss = FullCrossEntropy(chunk_tokens)(hidden, target, embedding)
    gradients = torch.autograd.grad(loss * 3, [hidden, embedding])
    assert torch.allclose(loss, expected)
    for ours, theirs in zip(gradients, expected_gradients):
        assert torch.allclose(ours, theirs)


def test_bce_never_uses_the_target_as_its_negative():
    # One target at +inf-like score: were it drawn as a negative, the loss would explode.
    hidden = torch.ones(500, 1)
    embedding = torch.tensor([[0.0], [50.0], [-50.0]])
    loss = BCE()(hidden, torch.ones(500, dtype=torch.int64), embedding)
    assert loss.item() == pytest.approx(0, abs=1e-6)


def test_gbce_with_t_zero_is_plain_bce_over_the_same_negatives(case):
    hidden, target, embedding = case
    torch.manual_seed(4)
    loss = GBCE(num_negatives=20, t=0)(hidden, target, embedding)
    torch.manual_seed(4)
    negatives = torch.randint(1, 51, (20,))
    against = logsigmoid(-(hidden @ embedding[negatives].T))
    against = against.masked_fill(target[:, None] == negatives, 0)
    positive = logsigmoid((hidden * embedding[target]).sum(1))
    assert torch.allclose(loss, -(against.sum() + positive.sum()) / 21)


def test_gbce_calibration_lowers_the_weight_of_the_positive(case):
    losses = []
    for t in (0.0, 0.5, 1.0):
        torch.manual_seed(4)
        losses.append(GBCE(num_negatives=20, t=t)(*case).item())
    assert losses == sorted(losses, reverse=True)
    assert losses[0] > losses[-1]


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
def test_padding_gets_no_gradient(case, loss):
    hidden, target, embedding = case
    torch.manual_seed(0)
    (gradient,) = torch.autograd.grad(loss(hidden, target, embedding), [embedding])
    gradient = gradient.to_dense()  # sampled softmax's is sparse
    assert gradient[0].abs().sum() == 0
    assert gradient[1:].abs().sum() > 0


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
def test_a_loss_falls_when_the_target_scores_higher(loss):
    embedding = torch.eye(ROWS)
    target = torch.tensor([5, 9])
    torch.manual_seed(0)
    before = loss(torch.zeros(2, ROWS), target, embedding)
    torch.manual_seed(0)
    after = loss(embedding[target] * 3, target, embedding)
    assert after < before


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
def test_biases_score_as_if_they_stood_in_the_embedding(case, loss):
    hidden, target, embedding = case
    tokens = len(hidden)
    items = torch.randint(0, ROWS, (tokens, 6))
    biases = Biases(items, torch.randn(tokens, 6, dtype=torch.float64))
    dense = biases.add_to(torch.zeros(tokens, ROWS, dtype=torch.float64))
    dense[:, 0] = 0
    torch.manual_seed(4)
    ours = loss(hidden, target, embedding, biases)
    # A further dimension for each token, which it alone looks at.
    wider = torch.cat([hidden, torch.eye(tokens, dtype=torch.float64)], dim=1)
    torch.manual_seed(4)
    plain = loss(wider, target, torch.cat([embedding, dense.T], dim=1))
    torch.testing.assert_close(ours, plain)


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
def test_by_cosine_a_loss_is_that_of_rows_of_length_one(case, loss):
    hidden, target, embedding = case
    torch.manual_seed(4)
    ours = loss(hidden, target, embedding, is_cosine=True)
    by_ours = torch.autograd.grad(ours, [hidden, embedding])
    torch.manual_seed(4)
    unit = torch.nn.functional.normalize(embedding, dim=1)
    leaf = unit.detach().requires_grad_()  # a sparse gradient goes no further than a leaf
    plain = loss(hidden, target, leaf)
    of_hidden, of_unit = torch.autograd.grad(plain, [hidden, leaf])
    (of_embedding,) = torch.autograd.grad(unit, embedding, of_unit.to_dense())
    torch.testing.assert_close(ours, plain)
    for mine, theirs in zip(by_ours, [of_hidden, of_embedding]):
        torch.testing.assert_close(mine.to_dense(), theirs)


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
def test_a_loss_works_in_mixed_precision(loss):
    embedding = torch.randn(ROWS, 8, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        hidden = torch.nn.Linear(8, 8)(torch.randn(5, 8))
        total = loss(hidden, torch.tensor([1, 2, 3, 4, 29]), embedding)
    total.backward()
    assert embedding.grad.to_dense().isfinite().all()


@pytest.mark.parametrize("make", [lambda: GBCE(0), lambda: GBCE(5, t=2)])
def test_nonsense_settings_are_refused(make):
    with pytest.raises(ConfigError, match=r"loss\."):
        make()
