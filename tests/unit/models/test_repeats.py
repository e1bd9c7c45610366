import torch
from hypothesis import given
from hypothesis import strategies as st

from musicrec.models.biases import Biases
from musicrec.models.full_cross_entropy import FullCrossEntropy
from musicrec.models.layout import Layout
from musicrec.models.repeats import lagged

windows = st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=6), min_size=1, max_size=5)


@given(windows)
def test_a_token_has_heard_its_own_window_newest_first_and_nothing_else(windows):
    items = torch.tensor([item for window in windows for item in window])
    layout = Layout(torch.tensor([len(window) for window in windows]))
    heard = [[item for item in row if item] for row in lagged(items, layout.position).tolist()]
    assert heard == [window[: t + 1][::-1] for window in windows for t in range(len(window))]


def test_the_biases_of_a_track_heard_twice_are_summed():
    biases = Biases(torch.tensor([[3, 1, 3, 0]]), torch.tensor([[0.5, -1.0, 2.0, 99.0]]))
    scores = biases.add_to(torch.zeros(1, 5))
    assert scores[0, 1:].tolist() == [-1.0, 0.0, 2.5, 0.0]


def test_full_cross_entropy_with_biases_equals_torchs_own():
    torch.manual_seed(0)
    tokens, catalogue_size, dim, lags = 37, 20, 6, 5
    hidden = torch.randn(tokens, dim, dtype=torch.float64, requires_grad=True)
    table = torch.randn(catalogue_size + 1, dim, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(tokens, lags, dtype=torch.float64, requires_grad=True)
    items = torch.randint(0, catalogue_size + 1, (tokens, lags))
    target = torch.randint(1, catalogue_size + 1, (tokens,))

    ours = FullCrossEntropy(chunk_mb=0.001)(hidden, target, table, Biases(items, bias))
    gradients = torch.autograd.grad(ours, [hidden, table, bias])

    scores = (hidden @ table.T).scatter_add(1, items, bias)
    scores = torch.cat([torch.full((tokens, 1), float("-inf")), scores[:, 1:]], dim=1)
    theirs = torch.nn.functional.cross_entropy(scores, target, reduction="sum")
    torch.testing.assert_close(ours, theirs)
    for mine, expected in zip(
        gradients, torch.autograd.grad(theirs, [hidden, table, bias]), strict=True
    ):
        torch.testing.assert_close(mine, expected)
