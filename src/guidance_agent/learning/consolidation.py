"""Memory consolidation by batch: what many observations of a customer come to, in a few reflections with evidence.

    open_new ──▶ windows ──▶ batch ──▶ answer stored ──▶ advance: checked ──▶ reflections, observations marked

One request is about one window of one customer (`core/memory_windows.py`), and holds nothing else of anybody. In it
each observation has a code that follows from the window and the observation; an answer that names a code which was not
given in its own window is refused as a whole, so that an answer which strays to another customer's window finds nothing
there that it could rest on. Then the program checks each reflection by itself (`memory_checks.py`), and keeps those
that only report. What is left out costs nothing: its observations are remembered as they are.

The answer is stored in the transaction that marks its item applied; it is looked at afterwards, because the checks take
milliseconds each, for which nobody's text should wait.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from guidance_agent.compliance.data_blocks import block_code
from guidance_agent.core.batch_claims import BatchClaims
from guidance_agent.core.batch_processing import BatchProcessor, BatchRequest, BatchResult
from guidance_agent.core.batch_work import WorkStanding
from guidance_agent.core.batches.states import BatchKind
from guidance_agent.core.memory_windows import WINDOW_SIZE, MemoryWindow, MemoryWindows, NewReflection
from guidance_agent.learning.memory_checks import LONGEST_REFLECTION, Breaches, MemoryChecks, gate_breaches
from guidance_agent.learning.rendering import render_prompt
from guidance_agent.llm.messages import Message

if TYPE_CHECKING:
    import sqlalchemy as sa

    from guidance_agent.core.clock import Clock
    from guidance_agent.core.database import Database
    from guidance_agent.knowledge.loader import Knowledge

__all__ = ["CONSOLIDATION", "MOST_ATTEMPTS", "Consolidation", "MemoryConsolidation", "consolidation_prompt"]

CONSOLIDATION = "memory_consolidation"
"""The kind of its batches."""
MOST_ATTEMPTS = 2
"""How often a window is asked about whose answer cannot be kept."""
MOST_REFLECTIONS = 5

_ANSWER_TOKENS = 4_000
_AT_ONCE = 50
_logger = logging.getLogger("guidance_agent.memory")


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ConsolidatedMemory(_Answer):
    """One reflection, with the codes of the observations that it rests on."""

    evidence: Annotated[tuple[str, ...], Field(min_length=1)]
    text: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
    importance: Annotated[int, Field(ge=1, le=10)]


class Consolidation(_Answer):
    """What the observations of a window come to; nothing, where nothing lasts."""

    reflections: Annotated[tuple[ConsolidatedMemory, ...], Field(max_length=MOST_REFLECTIONS)]


def consolidation_prompt(window: MemoryWindow) -> tuple[Message, ...]:
    """Return the prompt about one window: what is the same for all first, then its observations as data."""
    codes = {memory_id: code for code, memory_id in _codes(window).items()}
    shown = [
        {"code": codes[each.id], "day": each.created_at.date().isoformat(), "text": each.text}
        for each in window.observations
    ]
    last = render_prompt(
        "observations.md.j2", code=block_code([each.text for each in window.observations]), observations=shown
    )
    return _stable(), Message("user", last)


@functools.cache
def _stable() -> Message:
    text = render_prompt("consolidation.md.j2", longest=LONGEST_REFLECTION, most=MOST_REFLECTIONS)
    return Message("system", text, part="consolidation")


class MemoryConsolidation:
    """Turns a customer's many observations into a few reflections, by batch; a `BatchWork`.

    Args:
        database: The records.
        clock: Times, days and ids.
        knowledge: The dated facts that the gate's rules compare figures with.
        model: The model that reflects.
        window: How many observations a customer must have that stand in no window yet, and how many make one.
        include_simulated: Whether what a simulated model led to is consolidated too, in windows of its own.
        breaches: What the rules of compliance find in a text; None takes the gate's.
    """

    name = "consolidation"

    def __init__(
        self,
        database: Database,
        clock: Clock,
        knowledge: Knowledge,
        model: str,
        *,
        window: int = WINDOW_SIZE,
        include_simulated: bool = False,
        breaches: Breaches | None = None,
    ) -> None:
        self.model = model
        self.kinds: Sequence[BatchKind] = (
            BatchKind(name=CONSOLIDATION, operation="consolidation", output=Consolidation, apply=self._apply),
        )
        self._clock = clock
        self._claims = BatchClaims(database, clock)
        self._windows = MemoryWindows(database, clock, size=window, include_simulated=include_simulated)
        self._checks = MemoryChecks(breaches or gate_breaches(knowledge))

    async def open_new(self, *, limit: int) -> int:
        """Make windows of observations that stand in none yet, at most `limit`; returns how many."""
        return await self._windows.open_new(limit)

    async def advance(self, batches: BatchProcessor) -> int:
        """Look at what was answered, then submit the windows that wait; returns how many were submitted.

        Raises:
            ConfigurationError: the model cannot be called as things are set up, or has no batch API.
        """
        await self.settle()
        return await self._claims.submit_ready(
            batches, CONSOLIDATION, self._windows.ready(), self._requests, model=self.model
        )

    async def settle(self) -> int:
        """Check what was answered and keep what passes; returns how many windows were looked at. Asks no model."""
        settled = 0
        while found := await self._windows.answered(_AT_ONCE):
            for window in found:
                await self._settle(window)
            settled += len(found)
        return settled

    async def standing(self) -> WorkStanding:
        """Return how many windows wait, are answered, and have ended with which outcome."""
        waiting, ended = await self._windows.standing()
        return WorkStanding(waiting=waiting, ended=ended)

    async def _requests(self, window_ids: Sequence[str]) -> Iterable[BatchRequest]:
        windows = await self._windows.find(window_ids)
        # Thousands of prompts are rendered in a thread.
        return await asyncio.to_thread(lambda: [self._request(window) for window in windows])

    def _request(self, window: MemoryWindow) -> BatchRequest:
        return BatchRequest(
            custom_id=window.id,
            messages=consolidation_prompt(window),
            max_tokens=_ANSWER_TOKENS,
            response_schema=Consolidation,
            metadata={"model": self.model},
        )

    def _apply(self, connection: sa.Connection, result: BatchResult) -> None:
        if result.success and isinstance(result.parsed, Consolidation):
            answer = result.parsed.model_dump(mode="json") | {"simulated": result.simulated}
            model = result.metadata.get("model")
            if not self._windows.note_answer(connection, result.custom_id, answer, model=model, cost=result.cost):
                _logger.info("window %s is not waited for any more", result.custom_id)
            return
        reason = f"{result.outcome}: {result.error or 'there is no answer'}"
        if self._windows.note_failure(connection, result.custom_id, reason, attempts=MOST_ATTEMPTS, cost=result.cost):
            self._claims.let_go(connection, CONSOLIDATION, [result.custom_id])

    async def _settle(self, window: MemoryWindow) -> None:
        kept, refused, simulated = await asyncio.to_thread(self._examine, window)
        reason = "; ".join(refused)
        if refused and not kept:

            def let_go(connection: sa.Connection) -> None:
                self._claims.let_go(connection, CONSOLIDATION, [window.id])

            await self._windows.put_back(window, reason, attempts=MOST_ATTEMPTS, refused=len(refused), then=let_go)
            return
        await self._windows.keep(window, kept, simulated=simulated, refused=len(refused), reason=reason)

    def _examine(self, window: MemoryWindow) -> tuple[list[NewReflection], list[str], bool]:
        """Return the reflections that pass, why the others do not, and whether a simulated model drew them."""
        stored: Mapping[str, object] = window.answer or {}
        simulated = bool(stored.get("simulated", False))
        try:
            answer = Consolidation.model_validate({"reflections": stored.get("reflections")})
        except ValidationError as error:
            return [], [f"The stored answer cannot be read: {error.error_count()} faults."], simulated
        codes, texts = _codes(window), {each.id: each.text for each in window.observations}
        if strange := sorted({code for each in answer.reflections for code in each.evidence} - codes.keys()):
            told = ", ".join(repr(code[:24]) for code in strange[:3])
            return [], [f"It names observations that it was not given: {told}."], simulated
        if simulated and not window.simulated:
            return [], ["A simulated model answered about what was said to a real one."], simulated
        kept: list[NewReflection] = []
        refused: list[str] = []
        for each in answer.reflections:
            evidence = tuple(dict.fromkeys(codes[code] for code in each.evidence))
            findings = self._checks.examine(each.text, [texts[one] for one in evidence], on=self._clock.today())
            if findings:
                refused.append("; ".join(f"{found.check}: {found.reason} ({found.quote!r})" for found in findings))
            else:
                kept.append(NewReflection(text=each.text, evidence=evidence, importance=each.importance))
        return kept, refused, simulated


def _codes(window: MemoryWindow) -> dict[str, str]:
    """Return the observations of a window by codes that stand for them in no other window."""
    codes: dict[str, str] = {}
    for each in window.observations:
        code = hashlib.sha256(f"{window.id}\0{each.id}".encode("utf-8", "surrogatepass")).hexdigest()
        length = 8
        while code[:length] in codes:
            length += 1
        codes[code[:length]] = each.id
    return codes
