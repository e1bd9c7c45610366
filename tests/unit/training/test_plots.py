"""Drawings that a browser can read and that show what they were given."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import torch

from musicrec.training.plots import learning_curve, rank_histogram

SVG = "{http://www.w3.org/2000/svg}"


def points(drawing: str) -> list[list[tuple[float, float]]]:
    lines = ElementTree.fromstring(drawing).iter(f"{SVG}polyline")
    return [[tuple(map(float, p.split(","))) for p in line.get("points").split()] for line in lines]


def test_a_falling_loss_falls_and_what_is_no_number_is_left_out():
    curves = {"train/loss": [(0, 3.0), (10, math.nan), (20, 1.0)], "val/ndcg_10": [(20, 0.5)]}
    loss, val = points(learning_curve(curves, "<mine> & yours"))
    assert [x for x, _ in loss] == sorted(x for x, _ in loss)
    assert loss[0][1] < loss[-1][1]  # an SVG's y grows downwards
    assert len(loss) == 2
    assert len(val) == 1


def test_the_bars_hold_every_target_once():
    ranks = torch.tensor([1, 1, 2, 3, 5, 6, 10, 11, 700])
    titles = [
        title.text or ""
        for title in ElementTree.fromstring(rank_histogram(ranks, "mine")).iter(f"{SVG}title")
    ]
    shares = dict(re.match(r"(.+): (.+)%", title).groups() for title in titles)
    counts = {name: round(float(share) * len(ranks) / 100) for name, share in shares.items()}
    assert sum(counts.values()) == len(ranks)
    assert (counts["1"], counts["2"], counts["3–5"], counts["6–10"]) == (2, 1, 2, 2)
    assert counts["501+"] == 1


def test_no_target_at_all_still_draws():
    ElementTree.fromstring(rank_histogram(torch.tensor([], dtype=torch.int64), "mine"))
