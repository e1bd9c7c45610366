"""RecTools' SASRec as its users run it: ``fit`` with loss softmax, then ``recommend``.

    python benchmarks/rectools_sasrec.py train DATA --shape A --steps 4
    python benchmarks/rectools_sasrec.py evaluate DATA --shape A --weights WEIGHTS.pt

Runs in an environment of its own (requirements-rectools.txt; ``compare.py`` makes it). Lightning's
trainer is the one RecTools makes by default, except that it stops after some steps: no progress
bar, no logger, no checkpoints. Its catalogue holds the items that it trains on, no others.

``evaluate`` times ``recommend`` of ten unheard items to everyone, a layer's weights being as drawn.
That its protocol is ours is checked apart from that: layers like the bare loop's, with the bare
loop's weights and padding masked, recommend again, and each target's place among the ten is told.
"""

from __future__ import annotations

import argparse
import warnings
from typing import Any

import numpy as np
import pandas as pd
import torch
from pytorch_lightning import Callback, Trainer
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel
from rectools.models.nn.transformers.net_blocks import PreLNTransformerLayers
from torch import Tensor, nn

from contestant import Clock, Shape, Stopwatch, flags, report, shape_of
from listens import Listens, read

K = 10


class Timed(Callback):
    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.clock.step(int((batch["y"] != 0).sum()))


class PreNormLayers(PreLNTransformerLayers):
    """RecTools' pre-norm blocks with the bare loop's feed-forward and last norm."""

    def __init__(self, n_factors: int, **sizes: Any) -> None:
        super().__init__(n_factors=n_factors, ff_factors_multiplier=1, **sizes)
        for block in self.transformer_blocks:
            block.feed_forward.ff_activation = nn.ReLU()
        self.norm = nn.LayerNorm(n_factors)

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        return self.norm(super().forward(*args, **kwargs))


def trainer(steps: int, *watchers: Callback) -> Trainer:
    """RecTools' own default trainer, with an end."""
    return Trainer(
        max_epochs=None,
        max_steps=steps,
        enable_progress_bar=False,
        enable_model_summary=False,
        logger=False,
        enable_checkpointing=False,
        devices=1,
        callbacks=list(watchers),
    )


def model_of(shape: Shape, steps: int, *watchers: Callback, **more: Any) -> SASRecModel:
    return SASRecModel(
        n_blocks=shape.blocks,
        n_heads=shape.heads,
        n_factors=shape.dim,
        dropout_rate=0.2,
        session_max_len=shape.length,
        loss="softmax",
        batch_size=shape.batch,
        get_trainer_func=lambda: trainer(steps, *watchers),
        **more,
    )


def dataset_of(users: np.ndarray, items: np.ndarray) -> Dataset:
    """Interactions in order of time."""
    moments = pd.to_datetime(np.arange(len(items)), unit="s")
    columns = {Columns.User: users, Columns.Item: items, Columns.Weight: 1.0}
    return Dataset.construct(pd.DataFrame(columns | {Columns.Datetime: moments}))


def prefixes(listens: Listens, length: np.ndarray) -> Dataset:
    """The first ``length`` interactions of each listener."""
    users = np.repeat(np.arange(len(length)), listens.lengths)
    place = np.arange(len(users)) - listens.offsets[users]
    is_known = place < length[users]
    return dataset_of(users[is_known], listens.items[is_known])


def train(listens: Listens, shape: Shape, clock: Clock) -> dict[str, float]:
    model = model_of(shape, clock.total, Timed(clock))
    model.fit(prefixes(listens, listens.training_prefix()))
    (timed,) = (c for c in model.fit_trainer.callbacks if isinstance(c, Timed))  # it was copied
    items = len(model.data_preparator.get_known_items_sorted_internal_ids())
    return timed.clock.result | {"catalogue": items}


def untrained(listens: Listens, shape: Shape, **more: Any) -> SASRecModel:
    """A model that knows the whole catalogue: pretended listeners have heard all of it."""
    items = np.arange(1, listens.catalogue_size + 1)
    pretended = dataset_of(np.minimum(items // shape.length, len(items) // shape.length - 1), items)
    return model_of(shape, 0, **more).fit(pretended)


def place_of_targets(recommended: pd.DataFrame, listens: Listens, who: np.ndarray) -> np.ndarray:
    """Of each asked listener: the place of the last item among the ``K``, 0 if it is not there."""
    last = pd.Series(listens.items[listens.offsets[who + 1] - 1], index=who)
    hits = recommended[recommended[Columns.Item] == recommended[Columns.User].map(last)]
    return hits.set_index(Columns.User)[Columns.Rank].reindex(who, fill_value=0).to_numpy()


def load(model: SASRecModel, bare: dict[str, Tensor]) -> None:
    """The weights of ``bare_loop.SASRec`` in a model of ``PreNormLayers``."""
    names = {
        "query_key_value.": "multi_head_attn.in_proj_",
        "attention_out.": "multi_head_attn.out_proj.",
        "attention_norm.": "layer_norm_1.",
        "feed_forward_norm.": "layer_norm_2.",
        "feed_forward.0.": "feed_forward.ff_linear_1.",
        "feed_forward.1.": "feed_forward.ff_linear_2.",
        "blocks.": "transformer_layers.transformer_blocks.",
    }
    weights = {}
    for name, weight in bare.items():
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        weights[name] = weight
    table = weights.pop("item_embedding.weight")
    weights["pos_encoding_layer.pos_emb.weight"] = weights.pop("position_embedding.weight")
    for kind in ("weight", "bias"):
        weights[f"transformer_layers.norm.{kind}"] = weights.pop(f"norm.{kind}")
    known = model.data_preparator.get_known_item_ids().astype(np.int64)
    (item_net,) = (n for n in model.torch_model.state_dict() if n.startswith("item_model"))
    weights[item_net] = torch.cat([table[:1], table[torch.from_numpy(known)]])
    model.torch_model.load_state_dict(weights)


def evaluate(listens: Listens, shape: Shape, options: argparse.Namespace) -> dict[str, Any]:
    who, history = listens.asked(), prefixes(listens, listens.lengths - 1)
    asked = {"users": who, "dataset": history, "k": K, "filter_viewed": True}
    timed = untrained(listens, shape)
    watch = Stopwatch()
    timed.recommend(**asked)
    values: dict[str, Any] = watch.rates(len(who), "users")
    if options.weights:
        alike = untrained(
            listens,
            shape,
            transformer_layers_type=PreNormLayers,
            use_key_padding_mask=True,
            pos_encoding_kwargs={"use_scale_factor": True},
        )
        load(alike, torch.load(options.weights, weights_only=True))
        places = place_of_targets(alike.recommend(**asked), listens, who)
        values["places"] = places.tolist()
    return values


def main() -> None:
    warnings.simplefilter("ignore")
    options = flags(__doc__).parse_args()
    shape, listens = shape_of(options), read(options.data)
    if options.action == "train":
        report(options, train(listens, shape, Clock(options.warmup, options.steps)))
    else:
        report(options, evaluate(listens, shape, options))


if __name__ == "__main__":
    main()
