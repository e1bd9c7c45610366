import pytest
import torch
from torch.nn.functional import layer_norm, linear, relu, softmax

from musicrec.errors import ConfigError
from musicrec.models.sasrec import SASRec


@pytest.fixture
def model() -> SASRec:
    torch.manual_seed(0)
    model = SASRec(catalogue_size=30, max_length=12, dim=16, blocks=2, heads=4, dropout=0.3)
    for parameter in model.parameters():  # away from the small initial values
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


@pytest.fixture
def items() -> torch.Tensor:
    return torch.randint(1, 31, (3, 9), generator=torch.Generator().manual_seed(1))


def test_a_later_interaction_changes_nothing_before_it(model, items):
    changed = items.clone()
    changed[:, 6] = changed[:, 6] % 30 + 1
    before, after = model(items), model(changed)
    assert torch.equal(before[:, :6], after[:, :6])
    assert not torch.allclose(before[:, 6:], after[:, 6:])


def test_a_longer_left_padding_changes_nothing(model, items):
    padded = torch.cat([torch.zeros(3, 3, dtype=torch.int64), items], dim=1)
    assert torch.allclose(model(padded)[:, 3:], model(items), atol=1e-6)


def test_padding_beside_a_longer_neighbour_changes_nothing(model, items):
    short = items.clone()
    short[0, :5] = 0
    alone = model(items[:1, 5:])
    assert torch.allclose(model(short)[:1, 5:], alone, atol=1e-6)


def test_rows_of_padding_are_finite(model):
    assert model(torch.zeros(2, 5, dtype=torch.int64)).isfinite().all()


def test_order_matters(model, items):
    swapped = items.clone()
    swapped[:, [2, 5]] = swapped[:, [5, 2]]
    assert not torch.allclose(model(items)[:, -1], model(swapped)[:, -1])


def plain_sasrec(model: SASRec, history: list[int]) -> torch.Tensor:
    """One listener, one position at a time, with nothing but matrix products."""
    weights = dict(model.named_parameters())
    dim, heads = weights["norm.weight"].numel(), model.blocks[0].heads
    positions = weights["position_embedding.weight"][: len(history)].flip(0)
    x = weights["item_embedding.weight"][history] * dim**0.5 + positions

    def norm(name: str, value: torch.Tensor) -> torch.Tensor:
        return layer_norm(value, (dim,), weights[f"{name}.weight"], weights[f"{name}.bias"])

    def project(name: str, value: torch.Tensor) -> torch.Tensor:
        return linear(value, weights[f"{name}.weight"], weights[f"{name}.bias"])

    for number in range(len(model.blocks)):
        block = f"blocks.{number}"
        rows = []
        query, key, value = project(
            f"{block}.query_key_value", norm(f"{block}.attention_norm", x)
        ).chunk(3, dim=-1)
        for t in range(len(history)):
            mixed = []
            for h in range(heads):
                part = slice(h * dim // heads, (h + 1) * dim // heads)
                weight = softmax(key[: t + 1, part] @ query[t, part] / (dim // heads) ** 0.5, 0)
                mixed.append(weight @ value[: t + 1, part])
            rows.append(torch.cat(mixed))
        x = x + project(f"{block}.attention_out", torch.stack(rows))
        hidden = relu(project(f"{block}.feed_forward.0", norm(f"{block}.feed_forward_norm", x)))
        x = x + project(f"{block}.feed_forward.3", hidden)
    return project("output", norm("norm", x))


def test_the_model_agrees_with_a_plain_reference(model, items):
    for row in items:
        expected = plain_sasrec(model, row.tolist())
        assert torch.allclose(model(row[None])[0], expected, atol=1e-5)


def test_without_its_projection_the_model_ends_in_the_last_norm(items):
    torch.manual_seed(0)
    bare = SASRec(30, max_length=12, dim=16, heads=4, output_projection=False).eval()
    hidden = bare(items)
    assert torch.allclose(hidden.mean(-1), torch.zeros(3, 9), atol=1e-5)
    assert sum(p.numel() for p in bare.parameters()) == (
        sum(p.numel() for p in SASRec(30, max_length=12, dim=16, heads=4).parameters()) - 16 * 17
    )


def test_padding_never_wins(model, items):
    scores = model.scores(model(items)[:, -1])
    assert scores.shape == (3, 31)
    assert scores[:, 0].isneginf().all()


def test_heads_that_do_not_divide_dim_name_those_that_do():
    with pytest.raises(ConfigError, match=r"model\.heads=3 .* model\.dim=64; .* 1, 2, 4, 8, 16"):
        SASRec(catalogue_size=10, dim=64, heads=3)


def test_a_history_beyond_max_length_is_refused(model):
    with pytest.raises(ValueError, match="max_length=12"):
        model(torch.ones(1, 13, dtype=torch.int64))
