"""Learning from failures now: the four steps one after the other, each answer kept before the next is asked.

    reflect ─► validate ─► refine ─► value ─► ended: draft, merged, refused, dismissed or unreadable

A reflection is a row of its own, one for each failed turn. Its stage moves in one statement that only one process can
make, so that a failure is reflected on once, whoever asks and however often; a process that ends in between leaves an
answer that is kept and a stage that the next one goes on from. The rule is stored in the transaction that ends the
reflection. An answer that cannot be read moves nothing; after `MOST_UNREADABLE` of them the reflection ends without a
rule.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import sqlalchemy as sa
from pydantic import BaseModel

from guidance_agent.core.schema import reflections
from guidance_agent.core.types import JsonObject
from guidance_agent.errors import ModelError, StructuredOutputError
from guidance_agent.learning.answers import Refinement, RuleValue, Validation
from guidance_agent.learning.confidence import first_confidence
from guidance_agent.learning.failures import Failure, FailureRecords
from guidance_agent.learning.reflection import (
    JUDGE_VALUE,
    REFINE,
    REFLECT,
    VALIDATE,
    judge_rule_value,
    refine_principle,
    reflect_on_failure,
    validate_principle,
)
from guidance_agent.learning.rule_records import Drafted, Evidence

if TYPE_CHECKING:
    from guidance_agent.core.clock import Clock
    from guidance_agent.core.database import Database
    from guidance_agent.learning.prompts import StepName
    from guidance_agent.learning.rules import RulesBase
    from guidance_agent.llm.gateway import ModelGateway
    from guidance_agent.llm.structured import StructuredCompletion

__all__ = ["MOST_UNREADABLE", "Learned", "Learner", "ReflectionOutcome"]

ReflectionOutcome = Literal["draft", "merged", "refused", "dismissed", "unreadable", "waiting"]

MOST_UNREADABLE = 3
_RULES_SHOWN = 60
_logger = logging.getLogger("guidance_agent.learning")


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """What became of one failure.

    Attributes:
        outcome: `waiting` where a model could not be asked or read, and the next run goes on.
        reason: Why it led to no draft of its own.
        cost_usd: What its steps cost; None where a price is not known.
    """

    turn_id: str
    outcome: ReflectionOutcome
    reason: str = ""
    rule_id: str | None = None
    cost_usd: float | None = None
    simulated: bool = False


class _Taken(Exception):
    """Another process has moved the reflection on."""


class _Standing(BaseModel):
    """A reflection as its row has it."""

    id: str
    stage: str
    steps: list[JsonObject]
    unreadable: int
    outcome: str | None
    reason: str | None
    rule_id: str | None

    def answer(self, step: StepName) -> JsonObject:
        return next(dict(each["answer"]) for each in self.steps if each["step"] == step)

    @property
    def cost_usd(self) -> float | None:
        costs = [each["cost_usd"] for each in self.steps]
        return None if None in costs else sum(costs)

    @property
    def is_simulated(self) -> bool:
        return any(each["simulated"] for each in self.steps)


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
        self._rules = rules

    async def learn(self, *, limit: int = 20) -> tuple[Learned, ...]:
        """Reflect on failures that nobody has reflected on, and return what became of each.

        Raises:
            ConfigurationError: the model cannot be called as things are set up.
        """
        return tuple([await self.learn_from(failure) for failure in await self.failures.waiting(limit)])

    async def learn_from(self, failure: Failure) -> Learned:
        """Take one failure as far as it goes; one that has been reflected on is only told again."""
        standing = await self._open(failure)
        try:
            while standing.stage != "ended":
                standing = await self._step(failure, standing)
        except StructuredOutputError as error:
            standing = await self._unreadable(standing, str(error))
            if standing.stage != "ended":
                return self._told(failure, standing, waiting=str(error))
        except ModelError as error:
            _logger.warning("reflection waits: turn=%s error=%s", failure.turn_id, type(error).__name__)
            return self._told(failure, standing, waiting=str(error))
        except _Taken:
            return self._told(failure, standing, waiting="Another process works on it.")
        return self._told(failure, standing)

    def _told(self, failure: Failure, standing: _Standing, *, waiting: str | None = None) -> Learned:
        outcome: Any = "waiting" if waiting is not None else standing.outcome
        return Learned(
            turn_id=failure.turn_id,
            outcome=outcome,
            reason=standing.reason or "" if waiting is None else waiting,
            rule_id=standing.rule_id,
            cost_usd=standing.cost_usd,
            simulated=failure.simulated or standing.is_simulated,
        )

    async def _step(self, failure: Failure, standing: _Standing) -> _Standing:
        gateway, model = self._gateway, self.model
        if standing.stage == "reflect":
            asked = await reflect_on_failure(gateway, model, failure)
            reflection = asked.value
            ends = None if reflection.principle else f"Nothing is to be learned: {reflection.cause}"
            return await self._move(standing, "reflect", asked, then="validate", dismissed=ends)
        reflection = REFLECT.output.model_validate(standing.answer("reflect"))
        if standing.stage == "validate":
            checked = await validate_principle(gateway, model, failure, reflection)
            ends = None if checked.value.holds else f"The principle does not hold: {checked.value.reason}"
            return await self._move(standing, "validate", checked, then="refine", dismissed=ends)
        validation = VALIDATE.output.model_validate(standing.answer("validate"))
        if standing.stage == "refine":
            worded = await refine_principle(gateway, model, failure, reflection, validation)
            return await self._move(standing, "refine", worded, then="value", dismissed=None)
        refinement = REFINE.output.model_validate(standing.answer("refine"))
        valued = await judge_rule_value(
            gateway, model, failure, refinement, reflection, validation, rules=await self._rule_texts()
        )
        if not valued.value.is_kept:
            ends = f"The rule is not worth its place: {valued.value.reason}"
            return await self._move(standing, "value", valued, then="ended", dismissed=ends)
        return await self._keep(failure, standing, validation, refinement, valued)

    async def _keep(
        self,
        failure: Failure,
        standing: _Standing,
        validation: Validation,
        refinement: Refinement,
        valued: StructuredCompletion[RuleValue],
    ) -> _Standing:
        steps = [*standing.steps, self._kept(JUDGE_VALUE.name, valued)]
        prepared = await self._rules.make_ready(
            refinement.rule,
            confidence=first_confidence(validation.confidence, valued.value.value),
            evidence=Evidence(
                turn_id=failure.turn_id,
                consultation_id=failure.consultation_id,
                verdict_id=failure.verdict_id,
                source=failure.source,
                requirement=validation.requirement,
                models=tuple(dict.fromkeys(each["model"] for each in steps)),
                steps=tuple(steps),
            ),
            names=failure.names,
            simulated=failure.simulated or any(each["simulated"] for each in steps),
        )

        def write(connection: sa.Connection) -> _Standing:
            stored = self._rules.store(connection, prepared)
            values = {"outcome": stored.outcome, "reason": _findings(stored), "rule_id": stored.rule_id}
            return self._moved(connection, standing, {"stage": "ended", "steps": steps, **values})

        return await self._database.transaction(write)

    async def _move(
        self,
        standing: _Standing,
        step: StepName,
        asked: StructuredCompletion[Any],
        *,
        then: str,
        dismissed: str | None,
    ) -> _Standing:
        values: dict[str, Any] = {"stage": then, "steps": [*standing.steps, self._kept(step, asked)], "unreadable": 0}
        if dismissed is not None:
            values |= {"stage": "ended", "outcome": "dismissed", "reason": dismissed}
        return await self._database.transaction(lambda connection: self._moved(connection, standing, values))

    def _moved(self, connection: sa.Connection, standing: _Standing, values: dict[str, Any]) -> _Standing:
        if values.get("stage") == "ended":
            values = {**values, "ended_at": self._clock.now()}
        change = sa.update(reflections).where(reflections.c.id == standing.id, reflections.c.stage == standing.stage)
        if not connection.execute(change.values(**values)).rowcount:
            raise _Taken
        return standing.model_copy(update={name: values[name] for name in values if name != "ended_at"})

    def _kept(self, step: StepName, asked: StructuredCompletion[Any]) -> JsonObject:
        call = asked.completion.call
        return {
            "step": step,
            "model": call.model,
            "answer": asked.value.model_dump(mode="json"),
            "cost_usd": None if call.cost is None else call.cost.usd,
            "simulated": call.simulated,
            "at": self._clock.now().isoformat(),
        }

    async def _unreadable(self, standing: _Standing, why: str) -> _Standing:
        values: dict[str, Any] = {"unreadable": standing.unreadable + 1}
        if standing.unreadable + 1 >= MOST_UNREADABLE:
            values |= {"stage": "ended", "outcome": "unreadable", "reason": why}
        try:
            return await self._database.transaction(lambda connection: self._moved(connection, standing, values))
        except _Taken:
            return standing

    async def _open(self, failure: Failure) -> _Standing:
        columns = [reflections.c[name] for name in _Standing.model_fields]
        query = sa.select(*columns).where(reflections.c.turn_id == failure.turn_id)
        now, new_id = self._clock.now(), self._clock.new_id("reflection")

        def write(connection: sa.Connection) -> _Standing:
            # Two processes that begin at once find the same row, because only one of them can insert it.
            insert: Any = _insert(connection)
            connection.execute(
                insert.values(
                    id=new_id,
                    turn_id=failure.turn_id,
                    consultation_id=failure.consultation_id,
                    verdict_id=failure.verdict_id,
                    source=failure.source,
                    stage="reflect",
                    steps=[],
                    unreadable=0,
                    simulated=failure.simulated,
                    created_at=now,
                ).on_conflict_do_nothing(index_elements=["turn_id"])
            )
            return _Standing(**connection.execute(query).mappings().one())

        return await self._database.transaction(write)

    async def _rule_texts(self) -> tuple[str, ...]:
        known = await self._rules.rules(statuses=("draft", "released"))
        surest = sorted(known, key=lambda rule: (rule.status != "released", -rule.confidence, rule.id))
        return tuple(rule.text for rule in surest[:_RULES_SHOWN])


def _insert(connection: sa.Connection) -> Any:
    from sqlalchemy.dialects import postgresql, sqlite

    return (postgresql if connection.dialect.name == "postgresql" else sqlite).insert(reflections)


def _findings(stored: Drafted) -> str | None:
    if not stored.findings:
        return None
    told = "; ".join(f"{found.check}: {found.reason} ({found.quote!r})" for found in stored.findings)
    return f"The rule is refused. {told}"
