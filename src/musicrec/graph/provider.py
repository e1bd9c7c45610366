"""Who writes interest graphs: a protocol with three implementations, and how they fail.

A provider does one call and nothing else: it never retries, waits, counts money or parses. What
to do about a failure is the job's decision, by ``ProviderError.then``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from musicrec.errors import MusicrecError

if TYPE_CHECKING:
    from musicrec.graph.summary import Summary

#: ``retry``: the same call may work later; ``skip``: this user's never will; ``stop``: nobody's
#: will until a person has mended something (key, credit, model name).
Then = Literal["retry", "skip", "stop"]


@dataclass(frozen=True, slots=True)
class Ask:
    """One call.

    Attributes:
        summary: what is told of the listening; ``local`` reads nothing else.
        system: the same for every user, so that providers can cache it.
        prompt: the summary as text, and in a repair what was wrong with the last reply.
        max_tokens: of output.
    """

    summary: Summary
    system: str
    prompt: str
    max_tokens: int


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens that were billed; ``cached`` and ``cache_written`` are among ``input``."""

    input: int
    output: int
    cached: int = 0
    cache_written: int = 0


@dataclass(frozen=True, slots=True)
class Limits:
    """What a provider's headers say of its rate limits; None where they say nothing.

    Attributes:
        requests, input_tokens, output_tokens: ``(limit, remaining, seconds until whole again)``.
    """

    requests: tuple[int, int, float] | None = None
    input_tokens: tuple[int, int, float] | None = None
    output_tokens: tuple[int, int, float] | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, before anybody has looked into it.

    Attributes:
        raw: the whole body as received, JSON-able; stored before it is parsed.
        text: what should be a ``schema.Reply`` as JSON; None where there is none.
        end: why it ended; only ``complete`` is worth parsing.
        usage: None where the provider does not say.
    """

    raw: Mapping[str, Any]
    text: str | None
    end: Literal["complete", "truncated", "refused"]
    usage: Usage | None
    model: str
    limits: Limits = field(default_factory=Limits)


class ProviderError(MusicrecError):
    """A call that gave no answer.

    Attributes:
        then: what may help.
        retry_after: seconds that the provider asks to wait, where it does.
        is_rate_limit: whether everybody should pause, not this call alone.
        may_be_billed: whether the provider may have worked for it: a timeout or a lost connection.
        is_gone: whether what was asked for is not there, or not any more.
    """

    def __init__(
        self,
        message: str,
        then: Then,
        *,
        retry_after: float | None = None,
        is_rate_limit: bool = False,
        may_be_billed: bool = False,
        is_gone: bool = False,
        raw: Any = None,
    ) -> None:
        super().__init__(message)
        self.then = then
        self.retry_after = retry_after
        self.is_rate_limit = is_rate_limit
        self.may_be_billed = may_be_billed
        self.is_gone = is_gone
        self.raw = raw


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars for a million tokens; a batch costs ``batch_share`` of it.

    Attributes:
        cached, cache_written: of input read from and written to a cache; None: as other input.
    """

    input: float
    output: float
    cached: float | None = None
    cache_written: float | None = None
    batch_share: float = 0.5


class Provider(Protocol):
    """Asks one model.

    Attributes:
        name: ``local``, ``anthropic`` or ``openai``.
        model: the model's name; ``local`` has its version here.
        price: None where it is not known, and then ``max_cost_usd`` is refused; zero for local.
    """

    name: str
    model: str
    price: Price | None

    async def ask(self, ask: Ask, *, timeout_seconds: float) -> Answer:
        """One call, given up after ``timeout_seconds``.

        Raises:
            ProviderError: there is no answer.
        """
        ...

    async def count_tokens(self, ask: Ask) -> int:
        """Input tokens by the provider's own count, or by an estimate that says so in docs."""
        ...

    async def close(self) -> None:
        """Let connections go."""
        ...


@dataclass(frozen=True, slots=True)
class BatchState:
    """How far a batch is; ``has_ended`` means that its results can be fetched."""

    has_ended: bool
    num_done: int
    num_failed: int


class BatchProvider(Provider, Protocol):
    """A provider that also takes many calls at once, for later, at a lower price."""

    async def submit(self, batch: str, asks: Sequence[tuple[str, Ask]]) -> str:
        """Hand over ``(custom id, call)`` pairs.

        Args:
            batch: our own id of it, stored before; the provider is told, so that ``find`` works.

        Returns:
            The provider's id.
        """
        ...

    async def find(self, batch: str, since: float, *, known: Collection[str] = ()) -> str | None:
        """The provider's id of a batch that ``submit`` made under ours, if it did: after a crash.

        Args:
            since: unix seconds before which it was not submitted.
            known: the provider's ids of our other batches, which need no look.

        Raises:
            ProviderError: also, with ``then`` as ``retry``, where it cannot be told yet: Anthropic
                shows whose a batch is only once it has ended.
        """
        ...

    async def poll(self, provider_batch: str) -> BatchState:
        """How far it is."""
        ...

    def results(self, provider_batch: str) -> AsyncIterator[tuple[str, Answer | ProviderError]]:
        """What became of each custom id, in any order."""
        ...
