"""The yardstick: SASRec as fast as plain torch gets, all tricks exact, no framework.

    python benchmarks/bare_loop.py train DATA --shape A --steps 16
    python benchmarks/bare_loop.py prepare DATA --shape A --steps 48 --weights WEIGHTS.pt
    python benchmarks/bare_loop.py evaluate DATA --shape A --weights WEIGHTS.pt

Flat tokens, attention in length groups, linear and cross-entropy in one with the gradient built on
the way forward, dropout (attention's too) by 16 random bits an element, a catalogue padded for
the matrix units, evaluation of like lengths together, last position only, ranks by counting.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, scaled_dot_product_attention

from contestant import Clock, Shape, Stopwatch, flags, report, shape_of
from listens import Listens, read

P = 0.2  # dropout, everywhere
GROUPS, QUERY_ROWS, CHUNK = 8, 64, 256  # windows attend in 8 groups; tokens scored at once


def drop(x: Tensor, training: bool) -> Tensor:
    """Dropout; on a CPU 16 bits an element, so the rate is a multiple of 2**-16."""
    if not training or x.device.type != "cpu":
        return dropout(x, P, training)
    words = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    kept = words.view(torch.int16)[: x.numel()].view(x.shape) >= round(P * 2**16) - 2**15
    return x * kept.to(x.dtype).mul_(1 / (1 - P))


class Rows(torch.autograd.Function):
    """Rows spread over a padded matrix, or taken back from it: a copy in both directions."""

    @staticmethod
    def forward(ctx, x, index, size):  # size None: take; else: spread over so many rows
        ctx.index, ctx.size = index, (None if size else len(x))
        return x.new_zeros(size, x.shape[1]).index_copy_(0, index, x) if size else x[index]

    @staticmethod
    def backward(ctx, gradient):
        return Rows.apply(gradient, ctx.index, ctx.size), None, None


class ChunkedCrossEntropy(torch.autograd.Function):
    """Sum over tokens; a token's loss is told up to 87 (where its softmax leaves float32)."""

    @staticmethod
    def forward(ctx, hidden, weight, target, items):
        precise = weight.dtype
        weight = weight.to(hidden.dtype)
        hidden_gradient, weight_gradient = torch.empty_like(hidden), torch.zeros_like(weight)
        total = hidden.new_zeros((), dtype=precise)
        chunk = CHUNK if hidden.device.type == "cpu" else 1 << 15
        chunks = [x.split(chunk) for x in (hidden, target[:, None], hidden_gradient)]
        for h, t, g in zip(*chunks, strict=True):
            logits = h @ weight.T
            logits[:, 0] = logits[:, items + 1 :] = -math.inf
            out = logits if precise == h.dtype else None
            softmax = torch.softmax(logits, 1, dtype=precise, out=out)
            total -= softmax.gather(1, t).clamp_min(1e-38).log().sum()
            softmax.scatter_add_(1, t, softmax.new_full(t.shape, -1.0))
            softmax = softmax.to(h.dtype)
            torch.mm(softmax, weight, out=g)
            weight_gradient.addmm_(softmax.T, h)
        ctx.save_for_backward(hidden_gradient, weight_gradient.to(precise))
        return total

    @staticmethod
    def backward(ctx, upstream):
        hidden_gradient, weight_gradient = ctx.saved_tensors
        return hidden_gradient * upstream, weight_gradient * upstream, None, None


class Block(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm, self.feed_forward_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.query_key_value, self.attention_out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.feed_forward = nn.ModuleList([nn.Linear(dim, dim), nn.Linear(dim, dim)])

    def forward(self, x: Tensor, groups: list, newest: Tensor | None) -> Tensor:
        """``newest``: only those rows come out, each from its whole window."""
        qkv = self.query_key_value(self.attention_norm(x))
        parts = qkv.split([len(place) for place, *_ in groups])
        each = zip(parts, groups, strict=True)
        mixed = torch.cat([self.attend(*both, newest is not None) for both in each])
        x = x if newest is None else x[newest]
        x = x + drop(self.attention_out(mixed), self.training)
        inner, outer = self.feed_forward
        hidden = drop(inner(self.feed_forward_norm(x)).relu(), self.training)
        return x + drop(outer(hidden), self.training)

    def attend(self, qkv: Tensor, group: tuple, newest: bool) -> Tensor:
        """Self-attention of one group: flat in, flat out."""
        place, last, windows, length = group
        padded = Rows.apply(qkv, place, windows * length)
        q, k, v = padded.view(windows, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        if newest:
            q = q[torch.arange(windows), :, last].unsqueeze(2)
            seen = torch.arange(length, device=last.device) <= last[:, None]
            return scaled_dot_product_attention(q, k, v, seen[:, None, None]).flatten(1)
        if qkv.device.type != "cpu" or not self.training:
            p = P if self.training else 0.0
            mixed = scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=p)
        else:  # torch's dropout is slow here; what lies after a stretch of queries is skipped
            q, k, v = (t.reshape(windows * self.heads, length, -1) for t in (q, k, v))
            scale, parts = q.shape[-1] ** -0.5, []
            for start in range(0, length, QUERY_ROWS):
                end = min(start + QUERY_ROWS, length)
                future = torch.full((end - start, end), -math.inf).triu_(start + 1)
                keys = k[:, :end].transpose(1, 2)
                scores = torch.baddbmm(future, q[:, start:end], keys, alpha=scale)
                parts.append(drop(scores.softmax(-1), True) @ v[:, :end])
            mixed = torch.cat(parts, 1).view(windows, self.heads, length, -1)
        return Rows.apply(mixed.transpose(1, 2).reshape(windows * length, -1), place, None)


class SASRec(nn.Module):
    """Pre-norm, positions counted from the newest item, embeddings shared, no projection."""

    def __init__(self, items: int, shape: Shape) -> None:
        super().__init__()
        self.items = items
        self.item_embedding = nn.Embedding(-(-(items + 1) // 16) * 16, shape.dim, padding_idx=0)
        self.position_embedding = nn.Embedding(shape.length, shape.dim)
        self.blocks = nn.ModuleList(Block(shape.dim, shape.heads) for _ in range(shape.blocks))
        self.norm = nn.LayerNorm(shape.dim)
        for embedding in (self.item_embedding, self.position_embedding):
            nn.init.normal_(embedding.weight, std=0.02)
        nn.init.zeros_(self.item_embedding.weight[0])

    def forward(self, items: Tensor, lengths: np.ndarray, newest_only: bool = False) -> Tensor:
        """``(tokens, dim)``, or ``(windows, dim)``; windows flat, the longest first."""
        ends, device = lengths.cumsum(), items.device
        age = torch.from_numpy(np.repeat(ends, lengths) - 1 - np.arange(ends[-1])).to(device)
        scale = self.item_embedding.embedding_dim**0.5
        x = self.item_embedding(items) * scale + self.position_embedding(age)
        x, groups = drop(x, self.training), length_groups(lengths, device)
        newest = torch.from_numpy(ends - 1).to(device) if newest_only else None
        for block in self.blocks:
            x = block(x, groups, newest if block is self.blocks[-1] else None)
        return self.norm(x)


def length_groups(lengths: np.ndarray, device: torch.device) -> list[tuple]:
    """Of each group: its tokens' padded rows, each window's last column, windows, length."""
    groups = []
    for group in np.array_split(lengths, min(GROUPS, len(lengths))):
        starts = np.arange(len(group)) * group[0] - (group.cumsum() - group)
        place = np.repeat(starts, group) + np.arange(group.sum())
        on_device = [torch.from_numpy(each).to(device) for each in (place, group - 1)]
        groups.append((*on_device, len(group), int(group[0])))
    return groups


def flat(listens: Listens, who: np.ndarray, ends: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Indices of the ``lengths`` items before place ``ends`` of each history."""
    starts = listens.offsets[who] + ends - lengths
    return np.repeat(starts - (lengths.cumsum() - lengths), lengths) + np.arange(lengths.sum())


def train(listens: Listens, shape: Shape, clock: Clock, device: torch.device) -> SASRec:
    """Batches of each listener's newest window until the clock has seen its steps."""
    torch.manual_seed(0)
    model = SASRec(listens.catalogue_size, shape).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, (0.9, 0.98), fused=True)
    prefix, items = listens.training_prefix(), torch.from_numpy(listens.items.astype(np.int64))
    whole = np.flatnonzero(prefix >= 2)
    generator = np.random.default_rng(0)
    while True:
        for who in np.split(
            order := generator.permutation(whole), range(shape.batch, len(order), shape.batch)
        ):
            lengths = np.minimum(prefix[who] - 1, shape.length)
            longest_first = (-lengths).argsort(kind="stable")
            who, lengths = who[longest_first], lengths[longest_first]
            index = torch.from_numpy(flat(listens, who, prefix[who] - 1, lengths))
            batch, target = items[index].to(device), items[index + 1].to(device)
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type != "cpu"):
                hidden = model(batch, lengths)
                if device.type != "cpu":
                    hidden = hidden.bfloat16()
                total = ChunkedCrossEntropy.apply(
                    hidden, model.item_embedding.weight, target, model.items
                )
            optimizer.zero_grad()
            (total / len(target)).backward()
            optimizer.step()
            if clock.step(len(target)):
                return model


@torch.inference_mode()
def ranks(model: SASRec, listens: Listens, shape: Shape, device: torch.device) -> np.ndarray:
    """Rank of each asked listener's last item among all they had not heard before; 1 is best."""
    model.eval()
    who = listens.asked()
    place, items = listens.lengths[who] - 1, torch.from_numpy(listens.items.astype(np.int64))
    result = np.zeros(len(who), dtype=np.int64)
    for chosen in np.split(order := (-place).argsort(kind="stable"), range(256, len(order), 256)):
        users, history = who[chosen], place[chosen]
        lengths = np.minimum(history, shape.length)
        batch = items[flat(listens, users, history, lengths)].to(device)
        hidden = model(batch, lengths, newest_only=True)
        scores = hidden @ model.item_embedding.weight[: model.items + 1].T
        row = torch.from_numpy(np.repeat(np.arange(len(users)), history)).to(device)
        scores[row, items[flat(listens, users, history, history)].to(device)] = -math.inf
        target = items[listens.offsets[users] + history, None].to(device)
        wanted = scores.gather(1, target)
        scores[:, 0] = -math.inf
        rank = (scores >= wanted).sum(1)
        result[chosen] = torch.where(wanted[:, 0].isneginf(), 2**62, rank).cpu().numpy()
    return result


def main() -> None:
    options = flags(__doc__, "prepare").parse_args()
    shape, listens, device = shape_of(options), read(options.data), torch.device(options.device)
    if options.action != "evaluate":
        clock = Clock(options.warmup, options.steps)
        model = train(listens, shape, clock, device)
        if options.action == "prepare":
            torch.save(model.state_dict(), options.weights)
        report(options, clock.result)
        return
    model = SASRec(listens.catalogue_size, shape).to(device)
    model.load_state_dict(torch.load(options.weights, weights_only=True))
    watch = Stopwatch()
    rank = ranks(model, listens, shape, device)
    report(options, watch.rates(len(rank), "users") | {"ranks": rank.tolist()})


if __name__ == "__main__":
    main()
