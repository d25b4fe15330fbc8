"""The rows of reflections, one for each failed turn, and how they move on, whoever asked and through whatever.

    reflect ─► validate ─► refine ─► value ─► keep ─► ended: draft, merged, refused, dismissed or unreadable

A row holds the stage and each answer with its model, cost and time. A stage moves in one statement that only one
process can make, and the answer is kept by the same statement; in `keep` all answers are there and no model is needed.
The rule is stored in the transaction that ends the reflection. An answer that cannot be read moves nothing; after
`MOST_UNREADABLE` of them the reflection ends without a rule.

Who asks right now holds the row for `HELD_SECONDS`, or has its claim in a job of batches that is not done. Each of the
two notes its own first and looks for the other's afterwards, so that at least one of them steps back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import sqlalchemy as sa
from pydantic import BaseModel

from guidance_agent.core.bulk import insert_or_change
from guidance_agent.core.schema import reflections
from guidance_agent.core.types import JsonObject
from guidance_agent.learning.answers import Refinement, Reflection, RuleValue, Validation
from guidance_agent.learning.confidence import first_confidence
from guidance_agent.learning.failures import Failure, in_batch
from guidance_agent.learning.reflection import (
    refinement_request,
    reflection_request,
    validation_request,
    value_request,
)
from guidance_agent.learning.rule_records import Drafted, Evidence

if TYPE_CHECKING:
    from guidance_agent.core.clock import Clock
    from guidance_agent.core.database import Database
    from guidance_agent.learning.prompts import StepName
    from guidance_agent.learning.rules import RulesBase
    from guidance_agent.llm.messages import ModelRequest

__all__ = [
    "HELD_SECONDS",
    "MOST_UNREADABLE",
    "ReflectionOutcome",
    "ReflectionRecords",
    "Stage",
    "Standing",
    "StepAnswer",
    "TakenError",
    "not_held",
    "request_of",
]

Stage = Literal["reflect", "validate", "refine", "value", "keep", "ended"]
ReflectionOutcome = Literal["draft", "merged", "refused", "dismissed", "unreadable", "waiting"]

MOST_UNREADABLE = 3
HELD_SECONDS = 900.0
"""For how long a row belongs to a process that asks now and does not say again that it does."""

_RULES_SHOWN = 60
_NEXT: dict[StepName, Stage] = {"reflect": "validate", "validate": "refine", "refine": "value", "value": "keep"}


class TakenError(Exception):
    """Another process has the reflection, or has moved it on; says which of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepAnswer:
    """What a model answered in one step, and what that cost."""

    step: StepName
    value: BaseModel
    model: str
    cost_usd: float | None
    simulated: bool


class Standing(BaseModel):
    """A reflection as its row has it."""

    id: str
    turn_id: str
    stage: Stage
    steps: list[JsonObject]
    unreadable: int
    outcome: str | None
    reason: str | None
    rule_id: str | None
    owner: str | None
    lease_until: float | None

    @property
    def reflection(self) -> Reflection:
        return Reflection.model_validate(self._answer("reflect"))

    @property
    def validation(self) -> Validation:
        return Validation.model_validate(self._answer("validate"))

    @property
    def refinement(self) -> Refinement:
        return Refinement.model_validate(self._answer("refine"))

    @property
    def value(self) -> RuleValue:
        return RuleValue.model_validate(self._answer("value"))

    @property
    def cost_usd(self) -> float | None:
        costs = [each["cost_usd"] for each in self.steps]
        return None if None in costs else sum(costs)

    @property
    def is_simulated(self) -> bool:
        return any(each["simulated"] for each in self.steps)

    def _answer(self, step: StepName) -> JsonObject:
        return next(dict(each["answer"]) for each in self.steps if each["step"] == step)


def request_of(model: str, failure: Failure, standing: Standing, *, rules: Sequence[str]) -> ModelRequest:
    """Return the request that a reflection waits for: the same for a call and for an item of a batch.

    Args:
        model: Name with its provider.
        failure: What it is about.
        standing: A reflection in one of the four steps.
        rules: The texts of the rules that there are, for the last of them.
    """
    if standing.stage == "reflect":
        return reflection_request(model, failure)
    if standing.stage == "validate":
        return validation_request(model, failure, standing.reflection)
    if standing.stage == "refine":
        return refinement_request(model, failure, standing.reflection, standing.validation)
    return value_request(model, failure, standing.refinement, standing.reflection, standing.validation, rules=rules)


def not_held(clock: Clock) -> sa.ColumnElement[bool]:
    """The condition of reflections that nobody asks about right now."""
    return sa.func.coalesce(reflections.c.lease_until, 0.0) < clock.now().timestamp()


class ReflectionRecords:
    """Reads and moves the rows. Raises `DatabaseUnavailableError` when the database cannot be used.

    Args:
        database: The records.
        clock: Times and ids.
        rules: Where what is learned is kept.
    """

    def __init__(self, database: Database, clock: Clock, rules: RulesBase) -> None:
        self._database = database
        self._clock = clock
        self._rules = rules

    async def open(self, failures: Sequence[Failure]) -> int:
        """Note failures as waiting for the first step; returns of how many nobody had done so."""
        return await self._database.transaction(
            lambda connection: sum(self._opened(connection, failure) for failure in failures)
        )

    async def several(self, ids: Sequence[str]) -> list[Standing]:
        """Return reflections by their ids, in the order of these."""
        found: dict[str, Standing] = {}
        for first in range(0, len(ids), 500):
            query = _ROWS.where(reflections.c.id.in_(list(ids[first : first + 500])))
            some = await self._database.run(partial(_standings, query=query))
            found |= {standing.id: standing for standing in some}
        return [found[each] for each in ids if each in found]

    def find(self, connection: sa.Connection, reflection_id: str) -> Standing | None:
        """Return a reflection, which no other process can move before this transaction has ended."""
        query = _ROWS.where(reflections.c.id == reflection_id).with_for_update()
        row = connection.execute(query).mappings().first()
        return None if row is None else Standing(**row)

    async def hold(self, failure: Failure, owner: str) -> Standing:
        """Return the reflection on a failure, begun if it was not, for `owner` alone unless it has ended.

        Raises:
            TakenError: another process asks about it right now, or its request is in a batch.
        """
        query = _ROWS.where(reflections.c.turn_id == failure.turn_id)
        mine = sa.update(reflections).where(reflections.c.turn_id == failure.turn_id, not_held(self._clock))

        def write(connection: sa.Connection) -> Standing:
            self._opened(connection, failure)
            standing = Standing(**connection.execute(query).mappings().one())
            if standing.stage != "ended" and not connection.execute(mine.values(self._held_by(owner))).rowcount:
                raise TakenError("Another process works on it.")
            return standing

        standing = await self._database.transaction(write)
        if standing.stage == "ended":
            return standing
        claimed = sa.select(sa.exists().where(reflections.c.id == standing.id, in_batch()))
        if await self._database.run(lambda connection: bool(connection.execute(claimed).scalar())):
            await self.let_go(standing, owner)
            raise TakenError("Its request is in a batch.")
        return standing

    async def hold_on(self, standing: Standing, owner: str) -> None:
        """Hold a row for longer. Raises `TakenError` when another process has it by now."""
        mine = sa.update(reflections).where(reflections.c.id == standing.id, reflections.c.owner == owner)
        held = mine.values(self._held_by(owner))
        if not await self._database.transaction(lambda connection: connection.execute(held).rowcount):
            raise TakenError("Another process works on it.")

    async def let_go(self, standing: Standing, owner: str) -> None:
        """Hold a row no more."""
        mine = sa.update(reflections).where(reflections.c.id == standing.id, reflections.c.owner == owner)
        free = mine.values(owner=None, lease_until=None)
        await self._database.transaction(lambda connection: connection.execute(free))

    def answered(self, connection: sa.Connection, standing: Standing, answer: StepAnswer) -> Standing:
        """Keep the answer to the step that a reflection waits for, and move it on.

        Raises:
            TakenError: it does not wait for that any more.
        """
        values: dict[str, Any] = {
            "stage": _NEXT[answer.step],
            "steps": [*standing.steps, self._kept(answer)],
            "unreadable": 0,
            "reason": None,
        }
        if (reason := _no(answer.value)) is not None:
            values |= {"stage": "ended", "outcome": "dismissed", "reason": reason}
        return self._moved(connection, standing, values)

    def unreadable(self, connection: sa.Connection, standing: Standing, why: str, *, times: int = 1) -> Standing:
        """Count answers that could not be read; the last that may be ends the reflection. Raises `TakenError`."""
        values: dict[str, Any] = {"unreadable": standing.unreadable + times}
        if standing.unreadable + times >= MOST_UNREADABLE:
            values |= {"stage": "ended", "outcome": "unreadable", "reason": why}
        return self._moved(connection, standing, values)

    def dismissed(self, connection: sa.Connection, standing: Standing, why: str) -> Standing:
        """End a reflection without a rule. Raises `TakenError`."""
        return self._moved(connection, standing, {"stage": "ended", "outcome": "dismissed", "reason": why})

    def stuck(self, connection: sa.Connection, standing: Standing, why: str | None) -> Standing:
        """Note why a reflection does not go on by itself; None that it may again. Raises `TakenError`."""
        return self._moved(connection, standing, {"reason": why})

    async def keep(self, failure: Failure, standing: Standing) -> Standing:
        """Make a rule of a reflection whose answers are all there, and end it.

        Raises:
            TakenError: another process has done so.
            ModelError: the rule's vector could not be made; nothing has changed.
        """
        steps = standing.steps
        prepared = await self._rules.make_ready(
            standing.refinement.rule,
            confidence=first_confidence(standing.validation.confidence, standing.value.value),
            evidence=Evidence(
                turn_id=failure.turn_id,
                consultation_id=failure.consultation_id,
                verdict_id=failure.verdict_id,
                source=failure.source,
                requirement=standing.validation.requirement,
                models=tuple(dict.fromkeys(each["model"] for each in steps)),
                steps=tuple(steps),
            ),
            names=failure.names,
            simulated=failure.simulated or standing.is_simulated,
        )

        def write(connection: sa.Connection) -> Standing:
            stored = self._rules.store(connection, prepared)
            values = {"outcome": stored.outcome, "reason": _findings(stored), "rule_id": stored.rule_id}
            return self._moved(connection, standing, {"stage": "ended", **values})

        return await self._database.transaction(write)

    async def rule_texts(self) -> tuple[str, ...]:
        """Return the rules that a new one is compared with, those in force first."""
        known = await self._rules.rules(statuses=("draft", "released"))
        surest = sorted(known, key=lambda rule: (rule.status != "released", -rule.confidence, rule.id))
        return tuple(rule.text for rule in surest[:_RULES_SHOWN])

    def _opened(self, connection: sa.Connection, failure: Failure) -> bool:
        row: dict[str, Any] = {
            "id": self._clock.new_id("reflection"),
            "turn_id": failure.turn_id,
            "consultation_id": failure.consultation_id,
            "verdict_id": failure.verdict_id,
            "source": failure.source,
            "stage": "reflect",
            "steps": [],
            "unreadable": 0,
            "simulated": failure.simulated,
            "created_at": self._clock.now(),
        }
        # Two processes that begin at once find the same row, because only one of them can insert it.
        insert = insert_or_change(connection.dialect.name, reflections).values(row)
        inserted = insert.on_conflict_do_nothing(index_elements=["turn_id"]).returning(reflections.c.id)
        return connection.execute(inserted).first() is not None

    def _moved(self, connection: sa.Connection, standing: Standing, values: dict[str, Any]) -> Standing:
        ended = {"ended_at": self._clock.now()} if values.get("stage") == "ended" else {}
        change = sa.update(reflections).where(reflections.c.id == standing.id, reflections.c.stage == standing.stage)
        if not connection.execute(change.values(**values, **ended)).rowcount:
            raise TakenError("Another process has moved it on.")
        return standing.model_copy(update=values)

    def _held_by(self, owner: str) -> dict[str, Any]:
        return {"owner": owner, "lease_until": self._clock.now().timestamp() + HELD_SECONDS}

    def _kept(self, answer: StepAnswer) -> JsonObject:
        return {
            "step": answer.step,
            "model": answer.model,
            "answer": answer.value.model_dump(mode="json"),
            "cost_usd": answer.cost_usd,
            "simulated": answer.simulated,
            "at": self._clock.now().isoformat(),
        }


_ROWS = sa.select(*(reflections.c[name] for name in Standing.model_fields))


def _standings(connection: sa.Connection, query: sa.Select[Any]) -> list[Standing]:
    return [Standing(**row) for row in connection.execute(query).mappings()]


def _no(answer: BaseModel) -> str | None:
    """Return why an answer ends the reflection; None where it goes on."""
    if isinstance(answer, Reflection) and not answer.principle:
        return f"Nothing is to be learned: {answer.cause}"
    if isinstance(answer, Validation) and not answer.holds:
        return f"The principle does not hold: {answer.reason}"
    if isinstance(answer, RuleValue) and not answer.is_kept:
        return f"The rule is not worth its place: {answer.reason}"
    return None


def _findings(stored: Drafted) -> str | None:
    if not stored.findings:
        return None
    told = "; ".join(f"{found.check}: {found.reason} ({found.quote!r})" for found in stored.findings)
    return f"The rule is refused. {told}"
