"""What calls cost, and that a budget is never passed."""

from __future__ import annotations

import asyncio
import random
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musicrec.graph import budget
from musicrec.graph.budget import NANO, Budget, BudgetSpent
from musicrec.graph.provider import Price, Usage

PRICE = Price(0.10, 0.50, cached=0.01, cache_written=0.125)


def test_a_million_tokens_cost_the_price() -> None:
    usage = Usage(input=1_000_000, output=1_000_000)
    assert budget.cost(usage, PRICE) == 0.60 * NANO
    assert budget.cost(usage, PRICE, in_batch=True) == 0.30 * NANO


def test_what_is_cached_is_billed_at_its_own_price() -> None:
    usage = Usage(input=1_000_000, output=0, cached=400_000, cache_written=100_000)
    assert budget.cost(usage, PRICE) == pytest.approx((0.05 + 0.004 + 0.0125) * NANO)


@given(most=st.integers(0, 300), seed=st.integers(0, 1000))
def test_however_calls_end_the_budget_is_not_passed(most: int, seed: int) -> None:
    chance = random.Random(seed)
    money = Budget(Decimal(most) / NANO)
    made = 0

    async def call() -> None:
        nonlocal made
        await money.reserve(10)
        made += 1
        await asyncio.sleep(chance.random() / 1e6)
        assert money.spent + money.reserved <= most
        await money.settle(10, chance.randint(0, 10))

    async def all_of_them() -> list[BaseException | None]:
        return await asyncio.gather(*(call() for _ in range(40)), return_exceptions=True)

    ends = asyncio.run(all_of_them())
    assert all(end is None or isinstance(end, BudgetSpent) for end in ends)
    assert money.spent <= most
    assert made == 40 or most - money.spent < 10


def test_without_a_bound_nobody_waits() -> None:
    async def reserve() -> None:
        money = Budget(None)
        for _ in range(3):
            await money.reserve(10**18)

    asyncio.run(reserve())


@pytest.mark.parametrize(
    ("amount", "said"), [(0, "0.00"), (1_234_000_000, "1.23"), (1_234_567, "0.0012")]
)
def test_dollars_show_two_figures_at_least(amount: int, said: str) -> None:
    assert budget.dollars(amount) == said
