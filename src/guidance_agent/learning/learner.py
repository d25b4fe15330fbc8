"""Learning from failures now: the four steps one after the other, each answer kept before the next is asked.

A failure is reflected on once, whoever asks and however often. A process that ends in between leaves an answer that is
kept and a stage that the next one goes on from; `reflection_records.py` has the rows. A failure whose request is in a
batch is left to the batch.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from guidance_agent.errors import ModelError, StructuredOutputError
from guidance_agent.learning.failures import Failure, FailureRecords
from guidance_agent.learning.reflection import STEPS
from guidance_agent.learning.reflection_records import (
    MOST_UNREADABLE,
    ReflectionOutcome,
    ReflectionRecords,
    Standing,
    StepAnswer,
    TakenError,
    request_of,
)

if TYPE_CHECKING:
    from guidance_agent.core.clock import Clock
    from guidance_agent.core.database import Database
    from guidance_agent.learning.rules import RulesBase
    from guidance_agent.llm.gateway import ModelGateway

__all__ = ["MOST_UNREADABLE", "Learned", "Learner", "ReflectionOutcome"]

_logger = logging.getLogger("guidance_agent.learning")


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """What became of one failure.

    Attributes:
        outcome: `waiting` where a model could not be asked or read, or somebody else asks; a later run goes on.
        reason: Why it led to no draft of its own.
        cost_usd: What its steps cost; None where a price is not known.
    """

    turn_id: str
    outcome: ReflectionOutcome
    reason: str = ""
    rule_id: str | None = None
    cost_usd: float | None = None
    simulated: bool = False


class Learner:
    """Reflects on failures. May run in several processes.

    Args:
        database: The records.
        clock: Times and ids.
        gateway: The way to the model.
        model: The model that reflects; better not the one that wrote the answers.
        rules: Where what is learned is kept.
    """

    def __init__(self, database: Database, clock: Clock, gateway: ModelGateway, model: str, rules: RulesBase) -> None:
        self.model = model
        self.failures = FailureRecords(database, clock)
        self._database = database
        self._clock = clock
        self._gateway = gateway
        self._records = ReflectionRecords(database, clock, rules)

    async def learn(self, *, limit: int = 20) -> tuple[Learned, ...]:
        """Reflect on failures that nobody has reflected on, and return what became of each.

        Raises:
            ConfigurationError: the model cannot be called as things are set up.
        """
        return tuple([await self.learn_from(failure) for failure in await self.failures.waiting(limit)])

    async def learn_from(self, failure: Failure) -> Learned:
        """Take one failure as far as it goes; one that has been reflected on is only told again."""
        owner = self._clock.new_id("learner")
        try:
            standing = await self._records.hold(failure, owner)
        except TakenError as taken:
            return _waiting(failure, str(taken))
        try:
            return await self._go_on(failure, standing, owner)
        finally:
            await self._records.let_go(standing, owner)

    async def _go_on(self, failure: Failure, standing: Standing, owner: str) -> Learned:
        try:
            while standing.stage != "ended":
                await self._records.hold_on(standing, owner)
                standing = await self._step(failure, standing)
        except StructuredOutputError as error:
            return await self._unreadable(failure, standing, str(error))
        except ModelError as error:
            _logger.warning("reflection waits: turn=%s error=%s", failure.turn_id, type(error).__name__)
            return _waiting(failure, str(error), standing)
        except TakenError as taken:
            return _waiting(failure, str(taken), standing)
        return _told(failure, standing)

    async def _step(self, failure: Failure, standing: Standing) -> Standing:
        if standing.stage == "keep" or standing.stage == "ended":
            return await self._records.keep(failure, standing)
        step = STEPS[standing.stage]
        rules = await self._records.rule_texts() if standing.stage == "value" else ()
        asked = await step.ask(self._gateway, request_of(self.model, failure, standing, rules=rules))
        call = asked.completion.call
        answer = StepAnswer(
            step=step.name,
            value=asked.value,
            model=call.model,
            cost_usd=None if call.cost is None else call.cost.usd,
            simulated=call.simulated,
        )
        return await self._database.transaction(lambda connection: self._records.answered(connection, standing, answer))

    async def _unreadable(self, failure: Failure, standing: Standing, why: str) -> Learned:
        try:
            counted = await self._database.transaction(
                lambda connection: self._records.unreadable(connection, standing, why)
            )
        except TakenError:
            return _waiting(failure, why, standing)
        return _told(failure, counted) if counted.stage == "ended" else _waiting(failure, why, counted)


def _waiting(failure: Failure, why: str, standing: Standing | None = None) -> Learned:
    return Learned(
        turn_id=failure.turn_id,
        outcome="waiting",
        reason=why,
        cost_usd=None if standing is None else standing.cost_usd,
        simulated=failure.simulated or (standing is not None and standing.is_simulated),
    )


def _told(failure: Failure, standing: Standing) -> Learned:
    outcome: Any = standing.outcome
    return Learned(
        turn_id=failure.turn_id,
        outcome=outcome,
        reason=standing.reason or "",
        rule_id=standing.rule_id,
        cost_usd=standing.cost_usd,
        simulated=failure.simulated or standing.is_simulated,
    )
