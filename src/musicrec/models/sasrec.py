"""SASRec: self-attentive sequential recommendation (Kang & McAuley, arXiv 1808.09781).

Departures from the paper, each on purpose:

- *Learned positions count from the newest item* (0 = newest), not from the left edge, so that any
  history up to ``max_length`` meets the positions it was trained on.
- *One normalisation per sub-layer, before it,* for queries, keys and values alike, and a last one
  after the blocks; the authors' code normalises the queries only.
- *Rotary positions and a gated feed-forward* (``block``) instead of learned positions and ReLU,
  which remain as a choice.
- *Scores go by direction* (cosine, times a learnt temperature), not by length, as a choice.
- *Repeats and transitions are scored apart* (``repeats``, ``transitions``), as choices: what a
  listener has just heard, and what most often came next or soon after.
- *Batches are flat*: windows one after the other, without padding (``layout``).
- *The loss is a choice* (``losses``), full cross-entropy by default; the paper's is binary
  cross-entropy with one negative.

As in the paper: item embeddings are shared by input and output, scaled by sqrt(dim) on the way
in; dropout on embeddings, attention weights and both sub-layers. docs/LOG.md has what each choice
gained.

Axes: ``tokens`` interactions of all windows of a batch, one window after the other, oldest first
within a window; ``windows``; ``dim``.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, cast, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from musicrec.errors import ConfigError
from musicrec.models.biases import Biases
from musicrec.models.block import Block, FeedForward, Positions
from musicrec.models.dropout import Dropout
from musicrec.models.layout import Layout
from musicrec.models.repeats import RepeatHead, lagged
from musicrec.models.transitions import TransitionMemory, earlier

Similarity = Literal["cosine", "dot"]

_COLD = 2.7
"""Logarithm of what cosines are multiplied with at first."""


class Known(NamedTuple):
    """What the model knows after each of some interactions, ``rows`` of them."""

    hidden: Tensor
    """``(rows, dim)``; times ``output_table`` it gives scores."""
    biases: Biases | None
    """What is added to the scores of some items; None for nothing."""


class SASRec(nn.Module):
    """A causal transformer over a listener's items.

    Args:
        catalogue_size: number of items; index 0 is padding and not counted.
        max_length: interactions kept per listener, newest win.
        dim: width of embeddings and blocks.
        blocks: transformer blocks.
        heads: attention heads; divides ``dim``.
        dropout: probability, on embeddings, attention and both sub-layers.
        positions: ``rotary``, in every block, or the paper's ``learned``, added to the items.
        feed_forward: ``swiglu`` of width 2 dim, or the paper's ``relu`` of width dim.
        similarity: ``cosine`` scores by direction alone, times a learnt temperature; the paper's
            ``dot`` lets the length of an item's embedding speak for it, too.
        repeats: score heard tracks by how long ago they were heard, too.
        transitions: successors of each item to remember and score by count, too; 0: none. Before
            training, ``remember`` must count them.
        transition_lags: how many of a listener's newest items are asked for their successors: 1,
            the newest alone; 2, also the one before, for what came one play later; and so on.

    Raises:
        ConfigError: a size is not positive (``transitions``: negative), ``heads`` does not divide
            ``dim`` (into even parts, for rotary positions), or a choice is unknown.
    """

    def __init__(
        self,
        catalogue_size: int,
        max_length: int = 50,
        dim: int = 128,
        blocks: int = 2,
        heads: int = 4,
        dropout: float = 0.2,
        positions: Positions = "rotary",
        feed_forward: FeedForward = "swiglu",
        similarity: Similarity = "cosine",
        repeats: bool = True,
        transitions: int = 32,
        transition_lags: int = 3,
    ) -> None:
        super().__init__()
        _check_sizes(
            max_length=max_length,
            dim=dim,
            blocks=blocks,
            heads=heads,
            transition_lags=transition_lags,
        )
        _check_choice("positions", positions, get_args(Positions))
        _check_choice("feed_forward", feed_forward, get_args(FeedForward))
        _check_choice("similarity", similarity, get_args(Similarity))
        _check_heads(dim, heads, even=positions == "rotary")
        if not 0 <= dropout < 1:
            raise ConfigError(f"model.dropout={dropout} is not a probability in [0, 1)")
        if transitions < 0:
            raise ConfigError(f"model.transitions={transitions} must be 0 (none) or more")
        self.catalogue_size = catalogue_size
        self.max_length = max_length
        self.item_embedding = nn.Embedding(catalogue_size + 1, dim, padding_idx=0)
        self.position_embedding = nn.Embedding(max_length, dim) if positions == "learned" else None
        self.dropout = Dropout(dropout)
        self.blocks = nn.ModuleList(
            Block(
                dim,
                heads,
                dropout,
                max_length=max_length,
                positions=positions,
                feed_forward=feed_forward,
            )
            for _ in range(blocks)
        )
        self.norm = nn.LayerNorm(dim)
        self.log_temperature = nn.Parameter(torch.tensor(_COLD)) if similarity == "cosine" else None
        self.repeats = RepeatHead(dim, max_length) if repeats else None
        self.transitions = nn.ModuleList(
            TransitionMemory(catalogue_size, transitions, dim)
            for _ in range(transition_lags if transitions else 0)
        )
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
        with torch.no_grad():
            self.item_embedding.weight[0] = 0

    def forward(self, items: Tensor) -> Tensor:
        """Score of every item as the next one, of padded histories.

        Args:
            items: ``(batch, length)`` int64 item indices, oldest first, left-padded with 0; at
                least one of a row is an item, at most ``max_length`` are.

        Returns:
            ``(batch, catalogue_size + 1)``; padding scores ``-inf``.
        """
        is_item = items != 0
        return self.scores(self.encode_last(items[is_item], is_item.sum(dim=1)))

    def remember(self, before: Tensor, after: Tensor, lag: int = 0) -> None:
        """Count the transitions of one lag to go by; without a transition memory nothing happens.

        Args:
            before, after: ``(transitions,)`` int64 items, the second ``lag + 1`` plays after the
                first, of what is trained on and nothing else.
        """
        if len(self.transitions):
            cast(TransitionMemory, self.transitions[lag]).remember(before, after)

    def encode(self, items: Tensor, lengths: Tensor, targets: Tensor | None = None) -> Known:
        """What the model knows after each interaction, ``(tokens, dim)``.

        A row has seen the items of its window up to and with its own, and nothing else.

        Args:
            items: ``(tokens,)`` int64 item indices, none of them 0.
            lengths: ``(windows,)`` int64, items of each window, 1 to ``max_length``; best on the
                CPU, and longest first (``Layout`` says why).
            targets: ``(tokens,)`` int64, what followed each, where the model is to learn it: those
                very transitions are among the counted.

        Raises:
            ValueError: a window is longer than ``max_length``.
        """
        layout = self._layout(items, lengths)
        x = self._embed(items, layout)
        for block in self.blocks:
            x = block(x, layout)
        return self._known(self.norm(x), items, layout, targets=targets)

    def encode_last(self, items: Tensor, lengths: Tensor) -> Known:
        """As ``encode``, for the newest interaction of each window only: ``(windows, dim)``.

        The last block reads every token and computes the newest alone.
        """
        layout = self._layout(items, lengths)
        x = self._embed(items, layout)
        for block in self.blocks[:-1]:
            x = block(x, layout)
        last = cast(Block, self.blocks[-1])
        newest = self.norm(last.newest(x, layout))
        return self._known(newest, items, layout, rows=layout.newest)

    def _layout(self, items: Tensor, lengths: Tensor) -> Layout:
        layout = Layout(lengths, items.device)
        longest = max((group.longest for group in layout.groups), default=0)
        if longest > self.max_length:
            raise ValueError(f"{longest} interactions are more than max_length={self.max_length}")
        return layout

    def _embed(self, items: Tensor, layout: Layout) -> Tensor:
        x = self.item_embedding(items) * self.item_embedding.embedding_dim**0.5
        if self.position_embedding is not None:
            x = x + self.position_embedding(layout.age)
        embedded: Tensor = self.dropout(x)
        return embedded

    def _known(
        self,
        hidden: Tensor,
        items: Tensor,
        layout: Layout,
        *,
        rows: Tensor | None = None,
        targets: Tensor | None = None,
    ) -> Known:
        biases = None
        if self.repeats is not None:
            biases = self.repeats(hidden, lagged(items, layout.position, rows))
        for lag, memory in enumerate(self.transitions):
            recalled = memory(hidden, earlier(items, layout.position, lag, rows), targets)
            biases = recalled if biases is None else biases.beside(recalled)
        if self.log_temperature is not None:
            hidden = normalize(hidden, dim=1) * self.log_temperature.exp()
        return Known(hidden, biases)

    @property
    def is_cosine(self) -> bool:
        return self.log_temperature is not None

    def output_table(self) -> Tensor:
        """``(catalogue_size + 1, dim)`` what ``hidden`` is multiplied with."""
        weight = self.item_embedding.weight
        return normalize(weight, dim=1) if self.is_cosine else weight

    def scores(self, known: Known, table: Tensor | None = None) -> Tensor:
        """Score of every item as the next one, ``(rows, catalogue_size + 1)``.

        Never in bfloat16, autocast or not: it ties scores that differ. Padding scores ``-inf``.

        Args:
            table: ``output_table()``, from whoever asks often and keeps it.
        """
        weight = self.output_table() if table is None else table
        with torch.autocast(weight.device.type, enabled=False):
            scores = known.hidden.to(weight.dtype) @ weight.T
            if known.biases is not None:
                scores = known.biases.add_to(scores)
        scores[:, 0] = float("-inf")
        return scores


def _check_sizes(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise ConfigError(f"model.{name}={size} must be at least 1")


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"model.{name}={value!r} is not one of {', '.join(choices)}")


def _check_heads(dim: int, heads: int, *, even: bool) -> None:
    step = 2 if even else 1
    if dim % (heads * step):
        fits = ", ".join(str(h) for h in range(1, min(dim, 16) + 1) if dim % (h * step) == 0)
        parts = "even parts, which rotary positions need" if even else "equal parts"
        raise ConfigError(
            f"model.heads={heads} does not divide model.dim={dim} into {parts}; heads that do: "
            f"{fits or 'none'}"
        )
