"""``scripts/generate_interest_graph.py``: interest graphs of one listener or of all."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from decimal import Decimal, InvalidOperation

from omegaconf import DictConfig
from rich.console import Console

from musicrec.cli import door, flags, graph_report, report
from musicrec.cli.moments import moment
from musicrec.database.engine import Dataset, open_dataset
from musicrec.errors import ConfigError
from musicrec.graph import batching, job
from musicrec.graph.asking import Patience
from musicrec.graph.estimate import Offer, estimate
from musicrec.graph.history import user_key_of
from musicrec.graph.local import MODEL as LOCAL_MODEL
from musicrec.graph.provider import Price, Provider
from musicrec.graph.providers import DEFAULT_MODELS, NAMES, PRICES, provider_of
from musicrec.graph.retention import drop_replies
from musicrec.graph.settings import Settings, check
from musicrec.graph.tally import Tally

#: Exit statuses besides the door's own.
SOME_WITHOUT, STOPPED, INTERRUPTED = 3, 4, 130


def generate_graph(config: DictConfig) -> None:
    """Bring graphs up to the listening, or say what that would cost."""
    console = Console()
    if config.dataset is None:
        raise ConfigError("which dataset? add dataset=NAME, such as dataset=mine")
    if (config.user is None) == (not config.all_users):
        raise ConfigError("whose graph? say either user=ID, or all_users=true (--all-users)")
    if config.llm.mode not in ("live", "batch"):
        raise ConfigError(f"llm.mode={config.llm.mode}: there is live, and batch")
    settings = settings_of(config)
    if config.dry_run:
        for name, value in (
            ("batch_size", settings.batch_size),
            ("llm.max_tokens", settings.max_tokens),
        ):
            if value < 1:
                raise ConfigError(f"{name}={value} must be at least 1")
        with open_dataset(str(config.dataset)) as dataset:
            _estimate(config, dataset, _users(config, dataset), settings, console)
        return
    provider = _provider(config)
    check(provider, settings)
    with open_dataset(str(config.dataset)) as dataset:
        users = _users(config, dataset)
        tally = asyncio.run(_run(config, dataset, provider, users, settings, console))
        dropped = drop_replies(dataset, config.keep_replies_days)
        title = f"{dataset.name}: {provider.name} {provider.model}"
        console.print(graph_report.table(tally, provider, title))
        for line in graph_report.remarks(tally, dataset, provider, dropped):
            report.say(console, line)
    if tally.bug is not None:
        raise tally.bug
    if status := _status(tally):
        raise SystemExit(status)


def settings_of(config: DictConfig) -> Settings:
    """The command's settings as the job takes them.

    Raises:
        ConfigError: one that cannot work.
    """
    llm = config.llm
    for name in ("timeout_seconds", "deadline_seconds"):
        if llm[name] <= 0:
            raise ConfigError(f"llm.{name}={llm[name]} must be more than 0 seconds")
    for name in ("requests_per_minute", "input_tokens_per_minute", "output_tokens_per_minute"):
        if llm[name] is not None and llm[name] <= 0:
            raise ConfigError(f"llm.{name}={llm[name]} must be more than 0, or null to learn it")
    return Settings(
        batch_size=config.batch_size,
        max_in_flight=llm.max_in_flight,
        max_tokens=llm.max_tokens,
        max_summary_tokens=llm.max_summary_tokens,
        as_of=_as_of(config),
        zone=str(config.zone),
        max_cost_usd=_dollars(config.max_cost_usd),
        requests_per_minute=llm.requests_per_minute,
        input_tokens_per_minute=llm.input_tokens_per_minute,
        output_tokens_per_minute=llm.output_tokens_per_minute,
        retry_quarantined=config.retry_quarantined,
        patience=Patience(llm.timeout_seconds, llm.deadline_seconds),
    )


def _users(config: DictConfig, dataset: Dataset) -> list[int] | None:
    return None if config.user is None else [user_key_of(dataset, str(config.user))]


def _as_of(config: DictConfig) -> datetime | None:
    return None if config.as_of is None else moment("as_of", config.as_of)


def _dollars(given: object) -> Decimal | None:
    if given is None:
        return None
    try:
        value = Decimal(str(given))
    except InvalidOperation:
        value = Decimal(-1)
    if not (value.is_finite() and value > 0):
        raise ConfigError(f"max_cost_usd={given} is no amount of dollars, such as 1.5")
    return value


def _provider(config: DictConfig) -> Provider:
    llm = config.llm
    price = _price(llm.price)
    if llm.provider == "local":
        return provider_of("local", llm.model, llm.base_url)
    more = {"api": llm.api} if llm.provider == "openai" else {}
    return provider_of(
        llm.provider, llm.model, llm.base_url, effort=llm.effort, price=price, **more
    )


def _offer(config: DictConfig) -> Offer:
    name = config.llm.provider
    if name not in NAMES:
        raise ConfigError(f"no LLM provider {name!r}; one of {', '.join(NAMES)}")
    if name == "local":
        return Offer(name, LOCAL_MODEL, Price(0, 0))
    model = config.llm.model or DEFAULT_MODELS[name]
    return Offer(name, model, _price(config.llm.price) or PRICES.get(model))


def _price(price: DictConfig) -> Price | None:
    if (price.input is None) != (price.output is None):
        raise ConfigError("llm.price.input and llm.price.output belong together: say both")
    if price.input is None:
        return None
    if price.input < 0 or price.output < 0:
        raise ConfigError("llm.price must be 0 or more dollars for a million tokens")
    return Price(float(price.input), float(price.output))


async def _run(
    config: DictConfig,
    dataset: Dataset,
    provider: Provider,
    users: Sequence[int] | None,
    settings: Settings,
    console: Console,
) -> Tally:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def interrupted() -> None:
        loop.remove_signal_handler(signal.SIGINT)  # the second time does not wait
        report.say(console, "stopping: waiting for the calls in flight (Ctrl-C again: do not)")
        stop.set()

    with suppress(NotImplementedError):  # not on every system
        loop.add_signal_handler(signal.SIGINT, interrupted)
    try:
        with graph_report.bar(console, provider) as on_progress:
            if config.llm.mode == "batch":
                plan = batching.Plan(**config.llm.batch)
                return await batching.run(
                    *(dataset, provider, users, settings, plan), on_progress=on_progress, stop=stop
                )
            return await job.run(
                *(dataset, provider, users, settings), on_progress=on_progress, stop=stop
            )
    finally:
        await provider.close()


def _estimate(
    config: DictConfig,
    dataset: Dataset,
    users: Sequence[int] | None,
    settings: Settings,
    console: Console,
) -> None:
    provider = _offer(config)
    in_batch = config.llm.mode == "batch"
    with console.status("summarizing") as status:
        told = estimate(
            *(dataset, provider, users, settings),
            in_batch=in_batch,
            on_progress=lambda so_far: status.update(f"summarizing: {so_far.users:,} listeners"),
        )
    title = f"{dataset.name}: {provider.name} {provider.model}, nothing was called"
    console.print(graph_report.estimate_table(told, title))


def _status(tally: Tally) -> int:
    if tally.stopped == job.INTERRUPTED:
        return INTERRUPTED
    if tally.stopped is not None:
        return STOPPED
    return SOME_WITHOUT if tally.without else 0


def main() -> None:
    for logger in ("httpx2", "httpx", "anthropic", "openai"):  # they tell of every call
        logging.getLogger(logger).setLevel(logging.WARNING)
    door.run("generate_graph", generate_graph, flags.GENERATE_GRAPH)
