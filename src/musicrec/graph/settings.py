"""What a person chooses of a run, and what of it cannot work."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

from musicrec.errors import ConfigError
from musicrec.graph.asking import Patience
from musicrec.graph.provider import Provider


@dataclass(frozen=True, slots=True)
class Settings:
    """What a person chooses.

    Attributes:
        batch_size: listeners claimed at once.
        max_in_flight: calls at once.
        max_tokens: of output, per call.
        max_summary_tokens: of a summary.
        as_of: plays from then on are left out.
        zone: IANA name, for hours of the day.
        max_cost_usd: of this run; None is without bound.
        requests_per_minute, input_tokens_per_minute, output_tokens_per_minute: None learns them.
        retry_quarantined: ask again for those whom an earlier run has quarantined.
    """

    batch_size: int = 100
    max_in_flight: int = 16
    max_tokens: int = 4000
    max_summary_tokens: int = 3000
    as_of: datetime | None = None
    zone: str = "UTC"
    max_cost_usd: Decimal | None = None
    requests_per_minute: float | None = None
    input_tokens_per_minute: float | None = None
    output_tokens_per_minute: float | None = None
    retry_quarantined: bool = False
    patience: Patience = field(default_factory=Patience)


def check(provider: Provider, settings: Settings) -> None:
    """Refuse what cannot work.

    Raises:
        ConfigError: a budget without a known price, or a bound that bounds nothing.
    """
    if settings.max_cost_usd is not None and provider.price is None:
        raise ConfigError(
            f"max_cost_usd={settings.max_cost_usd}: the price of model {provider.model!r} is not "
            "known; say llm.price.input=… llm.price.output=… (dollars for a million tokens)"
        )
    for name in ("batch_size", "max_in_flight", "max_tokens"):
        if getattr(settings, name) < 1:
            raise ConfigError(f"{name}={getattr(settings, name)} must be 1 or more")
