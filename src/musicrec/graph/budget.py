"""What calls cost, and a bound that is never passed.

A call reserves the most it can cost before it is made: its output limit, and an input token for
every byte that is sent, since no tokenizer makes more. From its usage it is settled, and what was
left over can be spent by others. A call that may have been billed though no usage came counts as
all of its reservation.
"""

from __future__ import annotations

import asyncio
import json
import math
from dataclasses import replace
from decimal import Decimal

from musicrec.errors import GraphError
from musicrec.graph.provider import Ask, Price, Usage
from musicrec.graph.reply_schema import REPLY_SCHEMA

#: Counted in thousand millionths of a dollar: whole numbers add up exactly.
NANO = 1_000_000_000
#: Bytes of what every call is sent besides system and prompt: the schema, names of roles.
SCHEMA_BYTES = len(json.dumps(REPLY_SCHEMA)) + 1000


class BudgetSpent(GraphError):
    """The next call could pass ``max_cost_usd``."""


class Budget:
    """Shared by all calls of a run; amounts are nanodollars.

    Attributes:
        spent: what is settled; ``reserved``: what is not yet.
        unknown: of it, what was reserved for calls of which nobody knows whether they are billed.
    """

    def __init__(self, max_cost_usd: Decimal | None) -> None:
        self._most = None if max_cost_usd is None else int(max_cost_usd * NANO)
        self.reserved = 0
        self._settled = asyncio.Condition()
        self.spent = 0
        self.unknown = 0

    async def reserve(self, amount: int) -> None:
        """Wait until ``amount`` is free.

        Raises:
            BudgetSpent: it will never be.
        """
        async with self._settled:
            while not self._is_free(amount):
                if not self.reserved:
                    raise self._refusal(amount)
                await self._settled.wait()
            self.reserved += amount

    def take(self, amount: int) -> None:
        """Reserve ``amount``, and wait for nobody.

        Raises:
            BudgetSpent: it is not free.
        """
        if not self._is_free(amount):
            raise self._refusal(amount)
        self.reserved += amount

    async def settle(self, reserved: int, cost: int, *, is_known: bool = True) -> None:
        """Give back what was reserved, and count what it cost."""
        async with self._settled:
            self.reserved -= reserved
            self.spent += cost
            if not is_known:
                self.unknown += cost
            self._settled.notify_all()

    def _refusal(self, amount: int) -> BudgetSpent:
        assert self._most is not None
        return BudgetSpent(
            f"max_cost_usd={dollars(self._most)} leaves "
            f"${dollars(self._most - self.spent - self.reserved)}, and the next call may cost "
            f"${dollars(amount)}; run again to go on with a new budget, or raise it"
        )

    def _is_free(self, amount: int) -> bool:
        return self._most is None or self.spent + self.reserved + amount <= self._most


def input_bound(ask: Ask) -> int:
    """Input tokens that a call cannot pass."""
    return len(ask.system.encode()) + len(ask.prompt.encode()) + SCHEMA_BYTES


def most(ask: Ask, price: Price | None, *, in_batch: bool = False) -> int:
    """The most a call can cost; zero where the price is not known, and no budget is kept."""
    if price is None:
        return 0
    dearest = max(price.input, price.cached or 0.0, price.cache_written or 0.0)
    plain = replace(price, input=dearest, cached=None, cache_written=None)
    return cost(Usage(input_bound(ask), ask.max_tokens), plain, in_batch=in_batch)


def cost(usage: Usage, price: Price | None, *, in_batch: bool = False) -> int:
    """What usage costs, rounded up."""
    if price is None:
        return 0
    cached = price.input if price.cached is None else price.cached
    written = price.input if price.cache_written is None else price.cache_written
    plain = usage.input - usage.cached - usage.cache_written
    a_million = plain * price.input + usage.cached * cached + usage.cache_written * written
    a_million += usage.output * price.output
    share = price.batch_share if in_batch else 1.0
    return math.ceil(a_million * share * NANO / 1_000_000)


def usd(amount: int, price: Price | None) -> Decimal | None:
    """Nanodollars as they are stored; None where the price is not known."""
    return None if price is None else Decimal(amount) / NANO


def dollars(amount: int) -> str:
    """Nanodollars for people: cents, or as many places as show two figures."""
    value = amount / NANO
    if value == 0 or abs(value) >= 0.1:
        return f"{value:,.2f}"
    return f"{value:.{min(9, 1 - math.floor(math.log10(abs(value))))}f}"
