"""SASRec: self-attentive sequential recommendation (Kang & McAuley, arXiv 1808.09781).

Departures from the paper, each on purpose:

- *Positions count from the newest item* (0 = newest), not from the left edge, so that a longer
  left padding changes nothing and any history up to ``max_length`` meets the positions it was
  trained on.
- *One normalisation per sub-layer, before it,* for queries, keys and values alike, and a last one
  after the blocks; the authors' code normalises the queries only.
- *A linear output projection* before scoring, as an option. Input and output share their
  embeddings, so what the residual stream still holds of the last item scores that very item high;
  the projection lets the model tell "was played" from "comes next". It pays where heard items are
  ranked (docs/LOG.md has the figures).
- *Attention is ``scaled_dot_product_attention``*, its dropout included.
- *The loss is a choice* (``musicrec.models.losses``), full cross-entropy by default; the paper's
  is binary cross-entropy with one negative.

As in the paper: item embeddings are shared by input and output, scaled by sqrt(dim) on the way
in; point-wise feed-forward dim → dim → dim with ReLU; dropout on embeddings and both sub-layers.

Axes: ``batch`` sequences, ``length`` interactions oldest first, left-padded with item 0, ``dim``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from musicrec.errors import ConfigError


class SASRec(nn.Module):
    """A causal transformer over a listener's items.

    Args:
        catalogue_size: number of items; index 0 is padding and not counted.
        max_length: interactions kept per listener, newest win.
        dim: width of embeddings and blocks.
        blocks: transformer blocks.
        heads: attention heads; divides ``dim``.
        dropout: probability, on embeddings, attention and both sub-layers.
        output_projection: a linear layer between the last block and the scores.

    Raises:
        ConfigError: if ``heads`` does not divide ``dim`` or a size is not positive.
    """

    def __init__(
        self,
        catalogue_size: int,
        max_length: int = 50,
        dim: int = 128,
        blocks: int = 2,
        heads: int = 4,
        dropout: float = 0.2,
        output_projection: bool = True,
    ) -> None:
        super().__init__()
        _check_sizes(max_length=max_length, dim=dim, blocks=blocks, heads=heads)
        if dim % heads:
            fits = ", ".join(str(h) for h in range(1, min(dim, 16) + 1) if dim % h == 0)
            raise ConfigError(
                f"model.heads={heads} does not divide model.dim={dim}; heads that do: {fits}"
            )
        if not 0 <= dropout < 1:
            raise ConfigError(f"model.dropout={dropout} is not a probability in [0, 1)")
        self.catalogue_size = catalogue_size
        self.max_length = max_length
        self.item_embedding = nn.Embedding(catalogue_size + 1, dim, padding_idx=0)
        self.position_embedding = nn.Embedding(max_length, dim)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block(dim, heads, dropout) for _ in range(blocks))
        self.norm = nn.LayerNorm(dim)
        self.output = nn.Linear(dim, dim) if output_projection else nn.Identity()
        self._initialise()

    def _initialise(self) -> None:
        for embedding in (self.item_embedding, self.position_embedding):
            nn.init.normal_(embedding.weight, std=0.02)
        with torch.no_grad():
            self.item_embedding.weight[0] = 0

    def forward(self, items: Tensor) -> Tensor:
        """What the model knows after each interaction.

        Args:
            items: ``(batch, length)`` int64 item indices, left-padded; ``length`` of at most
                ``max_length``.

        Returns:
            ``(batch, length, dim)``; row ``t`` has seen the items up to and with ``t`` only. Rows
            of padding hold finite values that mean nothing.
        """
        length = items.shape[1]
        if length > self.max_length:
            raise ValueError(f"{length} interactions are more than max_length={self.max_length}")
        newest_first = torch.arange(length - 1, -1, -1, device=items.device)
        x = self.item_embedding(items) * self.item_embedding.embedding_dim**0.5
        x = self.dropout(x + self.position_embedding(newest_first))
        visible = attention_mask(items)
        for block in self.blocks:
            x = block(x, visible)
        return self.output(self.norm(x))

    def scores(self, hidden: Tensor) -> Tensor:
        """Score of every item as the next one.

        Args:
            hidden: ``(..., dim)``, rows of ``forward``'s result.

        Returns:
            ``(..., catalogue_size + 1)``; padding scores ``-inf``.
        """
        scores = hidden @ self.item_embedding.weight.T
        scores[..., 0] = float("-inf")
        return scores


class Block(nn.Module):
    """Attention and feed-forward, each normalised before, dropped out after, added to its input."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.attention_dropout = dropout
        self.attention_norm = nn.LayerNorm(dim)
        self.query_key_value = nn.Linear(dim, 3 * dim)
        self.attention_out = nn.Linear(dim, dim)
        self.feed_forward_norm = nn.LayerNorm(dim)
        self.feed_forward = nn.Sequential(
            nn.Linear(dim, dim), nn.ReLU(), nn.Dropout(dropout), nn.Linear(dim, dim)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, visible: Tensor) -> Tensor:
        """``(batch, length, dim)`` to the same; ``visible`` as ``attention_mask`` gives it."""
        x = x + self.dropout(self._attend(self.attention_norm(x), visible))
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))

    def _attend(self, x: Tensor, visible: Tensor) -> Tensor:
        batch, length, dim = x.shape
        query, key, value = (
            part.view(batch, length, self.heads, dim // self.heads).transpose(1, 2)
            for part in self.query_key_value(x).chunk(3, dim=-1)
        )
        dropout = self.attention_dropout if self.training else 0.0
        mixed = scaled_dot_product_attention(
            query, key, value, attn_mask=visible, dropout_p=dropout
        )
        return self.attention_out(mixed.transpose(1, 2).reshape(batch, length, dim))


def attention_mask(items: Tensor) -> Tensor:
    """Which interaction may look at which: ``(batch, 1, length, length)`` bool, query by key.

    A key is visible if it is no later than the query and is not padding. Every position sees
    itself, padding included: a row that sees nothing would be NaN.
    """
    length = items.shape[1]
    position = torch.arange(length, device=items.device)
    causal = position[:, None] >= position[None, :]
    itself = position[:, None] == position[None, :]
    return ((items != 0)[:, None, None, :] & causal) | itself


def _check_sizes(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise ConfigError(f"model.{name}={size} must be at least 1")
