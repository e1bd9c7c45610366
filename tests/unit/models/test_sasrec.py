"""The model against a plain reference, and what must change nothing."""

import itertools

import pytest
import torch
from torch import Tensor
from torch.nn.functional import layer_norm, linear, relu, silu, softmax

from musicrec.errors import ConfigError
from musicrec.models.sasrec import SASRec

WINDOWS = [[3, 1, 4, 1, 5, 9, 2, 6], [2, 7, 1, 8, 2], [30, 29, 3], [5]]
ITEMS = torch.tensor([item for window in WINDOWS for item in window])
LENGTHS = torch.tensor([len(window) for window in WINDOWS])


#: What was played right one after the other, and with one play in between, to remember.
PAIRS = [
    (torch.tensor([6, 6, 6, 6, 2, 3, 5]), torch.tensor([7, 7, 7, 4, 9, 1, 5])),
    (torch.tensor([2, 2, 2, 8, 29]), torch.tensor([11, 11, 7, 9, 1])),
]


def build(**choices: object) -> SASRec:
    torch.manual_seed(0)
    model = SASRec(
        catalogue_size=30,
        max_length=12,
        dim=16,
        blocks=2,
        heads=4,
        dropout=0.3,
        **{"transition_lags": 2, **choices},
    )
    for parameter in model.parameters():  # away from the small initial values
        torch.nn.init.normal_(parameter, std=0.3)
    for lag in range(len(model.transitions)):
        model.remember(*PAIRS[lag], lag)
    return model.eval()


@pytest.fixture(params=["rotary", "learned"])
def model(request) -> SASRec:
    return build(positions=request.param)


def scores_after_each(model: SASRec, items: Tensor, lengths: Tensor) -> Tensor:
    """``(tokens, items)`` as the loss sees them."""
    return model.scores(model.encode(items, lengths))


def test_a_later_interaction_changes_nothing_before_it(model):
    changed = ITEMS.clone()
    changed[5] = 17
    before, after = (scores_after_each(model, items, LENGTHS) for items in (ITEMS, changed))
    assert torch.equal(before[:5], after[:5])
    assert not torch.allclose(before[5:8], after[5:8])


def test_a_neighbouring_window_changes_nothing(model):
    together = scores_after_each(model, ITEMS, LENGTHS).split(LENGTHS.tolist())
    for window, scores in zip(WINDOWS, together, strict=True):
        alone = scores_after_each(model, torch.tensor(window), torch.tensor([len(window)]))
        torch.testing.assert_close(scores, alone, atol=1e-5, rtol=1e-5)


def test_the_newest_alone_are_scored_as_among_all(model):
    newest = model.scores(model.encode_last(ITEMS, LENGTHS))
    among_all = scores_after_each(model, ITEMS, LENGTHS)[LENGTHS.cumsum(0) - 1]
    torch.testing.assert_close(newest, among_all, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("width", [8, 11])
def test_padded_histories_are_scored_as_flat_ones(model, width):
    padded = torch.zeros(len(WINDOWS), width, dtype=torch.int64)
    for row, window in enumerate(WINDOWS):
        padded[row, width - len(window) :] = torch.tensor(window)
    flat = model.scores(model.encode_last(ITEMS, LENGTHS))
    torch.testing.assert_close(model(padded), flat, atol=1e-5, rtol=1e-5)


def test_with_rotary_positions_a_token_does_not_see_how_long_its_window_goes_on():
    model = build()
    whole = scores_after_each(model, torch.tensor(WINDOWS[0]), torch.tensor([8]))
    part = scores_after_each(model, torch.tensor(WINDOWS[0][:5]), torch.tensor([5]))
    torch.testing.assert_close(whole[:5], part, atol=1e-5, rtol=1e-5)


def test_order_matters(model):
    swapped = ITEMS.clone()
    swapped[[0, 2]] = swapped[[2, 0]]
    before, after = (model.encode_last(items, LENGTHS).hidden for items in (ITEMS, swapped))
    assert not torch.allclose(before[0], after[0])


def plain_sasrec(model: SASRec, history: list[int]) -> Tensor:
    """Scores after the last, one position at a time, with nothing but matrix products."""
    weights = dict(model.named_parameters())
    dim, heads = weights["norm.weight"].numel(), model.blocks[0].heads
    head_dim = dim // heads
    x = weights["item_embedding.weight"][history] * dim**0.5
    is_rotary = "position_embedding.weight" not in weights
    if not is_rotary:
        x = x + weights["position_embedding.weight"][: len(history)].flip(0)

    def norm(name: str, value: Tensor) -> Tensor:
        return layer_norm(value, (dim,), weights[f"{name}.weight"], weights[f"{name}.bias"])

    def project(name: str, value: Tensor) -> Tensor:
        return linear(value, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def turned(vector: Tensor, position: int) -> Tensor:
        if not is_rotary:
            return vector
        pairs = torch.complex(*vector.chunk(2))
        speed = 10_000.0 ** (-torch.arange(len(pairs)) / len(pairs))
        pairs = pairs * torch.polar(torch.ones(len(pairs)), position * speed)
        return torch.cat([pairs.real, pairs.imag])

    for number in range(len(model.blocks)):
        block = f"blocks.{number}"
        rows = []
        query, key, value = project(
            f"{block}.query_key_value", norm(f"{block}.attention_norm", x)
        ).chunk(3, dim=-1)
        for t in range(len(history)):
            mixed = []
            for h in range(heads):
                part = slice(h * head_dim, (h + 1) * head_dim)
                keys = torch.stack([turned(key[s, part], s) for s in range(t + 1)])
                weight = softmax(keys @ turned(query[t, part], t) / head_dim**0.5, 0)
                mixed.append(weight @ value[: t + 1, part])
            rows.append(torch.cat(mixed))
        x = x + project(f"{block}.attention_out", torch.stack(rows))
        normed = norm(f"{block}.feed_forward_norm", x)
        if f"{block}.feed_forward.into.weight" in weights:
            value, gate = project(f"{block}.feed_forward.into", normed).chunk(2, dim=-1)
            x = x + project(f"{block}.feed_forward.out", value * silu(gate))
        else:
            hidden = relu(project(f"{block}.feed_forward.0", normed))
            x = x + project(f"{block}.feed_forward.3", hidden)
    last = norm("norm", x)[-1]
    if "log_temperature" in weights:
        length = weights["item_embedding.weight"].norm(dim=1) * last.norm()
        cosine = weights["item_embedding.weight"] @ last / length
        scores = cosine * weights["log_temperature"].exp()
    else:
        scores = weights["item_embedding.weight"] @ last
    if "repeats.at_all.weight" in weights:
        by_lag, at_all = project("repeats.by_lag", last), project("repeats.at_all", last)
        for lag, item in enumerate(reversed(history)):
            scores[item] += by_lag[lag] + at_all[0]
    for lag in range(min(len(model.transitions), len(history))):
        by_count, by_total, constant = project(f"transitions.{lag}.use", last)
        before, after = PAIRS[lag]
        followed = after[history[-1 - lag] == before].tolist()
        for item in set(followed):
            count, total = torch.tensor([followed.count(item), len(followed)]).log()
            scores[item] += by_count * count - by_total * total + constant
    scores[0] = float("-inf")
    return scores


CHOICES = {
    "positions": ["rotary", "learned"],
    "feed_forward": ["swiglu", "relu"],
    "similarity": ["cosine", "dot"],
    "repeats": [True, False],
    "transitions": [32, 0],
    "transition_lags": [1, 2],
}


@pytest.mark.parametrize("choices", list(itertools.product(*CHOICES.values())), ids=str)
def test_the_model_agrees_with_a_plain_reference(choices):
    model = build(**dict(zip(CHOICES, choices)))
    scores = model.scores(model.encode_last(ITEMS, LENGTHS))
    for row, window in enumerate(WINDOWS):
        torch.testing.assert_close(scores[row], plain_sasrec(model, window), atol=1e-4, rtol=1e-4)


def test_padding_never_wins(model):
    scores = model.scores(model.encode_last(ITEMS, LENGTHS))
    assert scores.shape == (4, 31)
    assert scores[:, 0].isneginf().all()


def test_heads_that_do_not_divide_dim_name_those_that_do():
    with pytest.raises(ConfigError, match=r"model\.heads=3 .* model\.dim=64 .* 1, 2, 4, 8, 16"):
        SASRec(catalogue_size=10, dim=64, heads=3)


def test_rotary_positions_refuse_heads_of_odd_width():
    with pytest.raises(ConfigError, match=r"model\.heads=4 .* model\.dim=12 into even parts"):
        SASRec(catalogue_size=10, dim=12, heads=4)
    SASRec(catalogue_size=10, dim=12, heads=4, positions="learned")


@pytest.mark.parametrize("choice", ["positions", "feed_forward", "similarity"])
def test_an_unknown_choice_is_named(choice):
    with pytest.raises(ConfigError, match=rf"model\.{choice}='sinus' is not one of"):
        SASRec(catalogue_size=10, **{choice: "sinus"})


def test_a_negative_number_of_transitions_is_refused():
    with pytest.raises(ConfigError, match=r"model\.transitions=-1"):
        SASRec(catalogue_size=10, transitions=-1)


def test_a_kept_table_gives_the_same_scores(model):
    known = model.encode_last(ITEMS, LENGTHS)
    assert torch.equal(model.scores(known, model.output_table()), model.scores(known))


def test_a_history_beyond_max_length_is_refused(model):
    with pytest.raises(ValueError, match="max_length=12"):
        model(torch.ones(1, 13, dtype=torch.int64))
