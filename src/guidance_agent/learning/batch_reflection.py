"""Reflection in rounds of batches: each of the four steps is a batch, and what one brings is ready for the next.

    open_new ─► reflect ─► validate ─► refine ─► value ─► keep ─► ended
                └────── a batch round each ──────┘       └ no model

Requests, answer types and rows are those of learning now, so that a failure may go from one way to the other.
What a round's item came to:

    succeeded                        the answer is kept and the stage moves, where the reflection still waits for it
    invalid                          counts as many unreadable answers as it was sent; the last that may be ends it
    errored for a while, expired,    nothing is known: its claim is let go, and the next run sends it again
    cancelled
    refused by the provider          a person is needed: it is sent again by `send_again`, or asked now by a `Learner`

Failures are new when nobody has begun to reflect on them; a run that was late or did not take place loses none.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from guidance_agent.core.batch_claims import BatchClaims
from guidance_agent.core.batch_processing import BatchKind, BatchProcessor, BatchRequest, BatchResult
from guidance_agent.core.batch_work import WorkStanding
from guidance_agent.core.schema import reflections
from guidance_agent.errors import ModelError
from guidance_agent.learning.cases import CaseBase
from guidance_agent.learning.failures import KIND_PREFIX, FailureRecords
from guidance_agent.learning.prompts import StepName
from guidance_agent.learning.reflection import STEPS
from guidance_agent.learning.reflection_records import (
    ReflectionRecords,
    StepAnswer,
    TakenError,
    not_held,
    request_of,
)
from guidance_agent.learning.rule_feedback import RuleFeedback

if TYPE_CHECKING:
    from guidance_agent.core.clock import Clock
    from guidance_agent.core.database import Database
    from guidance_agent.learning.rules import RulesBase
    from guidance_agent.llm.messages import ModelRequest

__all__ = ["NO_FAILURE_ANY_MORE", "ReflectionRounds"]

NO_FAILURE_ANY_MORE: Final = "What it began with does not stand as a failure any more."

_REASONS_TOLD = 5
_logger = logging.getLogger("guidance_agent.learning")


class ReflectionRounds:
    """Reflection as work of a job that runs twice a day; a `BatchWork`. May run in several processes.

    Args:
        database: The records.
        clock: Times and ids.
        model: The model that reflects; better not the one that wrote the answers.
        rules: Where what is learned is kept.
    """

    name: Final = "reflection"

    def __init__(self, database: Database, clock: Clock, model: str, rules: RulesBase) -> None:
        self.model = model
        self._database = database
        self._clock = clock
        self._failures = FailureRecords(database, clock)
        self._records = ReflectionRecords(database, clock, rules)
        self._feedback = RuleFeedback(database, clock, rules)
        self._cases = CaseBase(database, clock, rules.embedder)
        self._claims = BatchClaims(database, clock)
        self.kinds: Sequence[BatchKind] = tuple(
            BatchKind(
                name=_kind(name), operation=step.operation, output=step.output, apply=partial(self.apply, step=name)
            )
            for name, step in STEPS.items()
        )

    async def open_new(self, *, limit: int) -> int:
        """Note failures on which no reflection has begun; returns of how many nobody else did so meanwhile.

        What answers since the last time say of the released rules is reported first (`rule_feedback.py`), and those
        that passed are looked at for cases (`cases.py`).
        """
        await self._feedback.report()
        try:
            await self._cases.add_new()
        except ModelError as error:
            _logger.warning("cases wait for their vectors: %s", type(error).__name__)
        return await self._records.open(await self._failures.unreflected(limit))

    async def advance(self, batches: BatchProcessor) -> int:
        """Make rules of what has all its answers, and submit what waits for one; returns how many items that were.

        Raises:
            ConfigurationError: the model cannot be called as things are set up, or has no batch API.
        """
        await self._keep()
        submitted = 0
        # The last step first: what a provider answers at once goes on with the next run all the same.
        for step in reversed(list(STEPS)):
            ready = (
                sa.select(reflections.c.id)
                .where(reflections.c.stage == step, not_held(self._clock))
                .order_by(reflections.c.created_at, reflections.c.id)
            )
            submitted += await self._claims.submit_ready(
                batches, _kind(step), ready, partial(self._requests, step=step), model=self.model
            )
        return submitted

    def apply(self, connection: sa.Connection, result: BatchResult, *, step: StepName) -> None:
        """Carry what became of an item over into its reflection, inside the transaction that marks it applied."""
        standing = self._records.find(connection, result.custom_id)
        if standing is None or standing.stage != step:
            # Somebody has asked meanwhile: the answer that came first is kept, and this one is only paid for.
            return
        if result.outcome == "errored_fatal":
            self._records.stuck(connection, standing, result.error or "The provider refuses the request.")
            return
        if result.outcome == "succeeded" and result.parsed is not None:
            answer = StepAnswer(
                step=step,
                value=result.parsed,
                model=result.metadata.get("model", self.model),
                cost_usd=result.cost,
                simulated=result.simulated,
            )
            self._records.answered(connection, standing, answer)
            return
        if result.outcome in ("succeeded", "invalid"):
            why = result.error or "The answer is none that can be read."
            standing = self._records.unreadable(connection, standing, why, times=result.attempts)
        if standing.stage == step:
            self._claims.let_go(connection, _kind(step), [standing.id])

    async def send_again(self) -> int:
        """Have the next run send what the provider had refused; returns how many reflections that are."""

        def write(connection: sa.Connection) -> int:
            found = connection.execute(_STUCK.with_for_update()).all()
            for step in STEPS:
                ids = [row.id for row in found if row.stage == step]
                self._claims.let_go(connection, _kind(step), ids)
            free = sa.update(reflections).where(reflections.c.id.in_([row.id for row in found]))
            connection.execute(free.values(reason=None))
            return len(found)

        return await self._database.transaction(write)

    async def standing(self) -> WorkStanding:
        """Return how many reflections wait in which stage, and how the others have ended."""
        counted = sa.func.count().label("count")
        query = sa.select(reflections.c.stage, reflections.c.outcome, counted).group_by(
            reflections.c.stage, reflections.c.outcome
        )
        stuck = sa.select(reflections.c.stage, reflections.c.reason, counted).where(_IS_STUCK)
        stuck = stuck.group_by(reflections.c.stage, reflections.c.reason).order_by(counted.desc()).limit(_REASONS_TOLD)
        rows, refused = await self._database.run(
            lambda connection: (connection.execute(query).all(), connection.execute(stuck).all())
        )
        return WorkStanding(
            waiting={row.stage: row[2] for row in rows if row.stage != "ended"},
            ended={str(row.outcome): row[2] for row in rows if row.stage == "ended"},
            needs_person=[
                f"{row[2]} reflections wait in {row.stage!r}, because the provider refused them: {row.reason} Have "
                "them sent again when that is mended, or ask now with `guidance-agent rules learn`."
                for row in refused
            ],
        )

    async def _requests(self, ids: Sequence[str], *, step: StepName) -> list[BatchRequest]:
        """Return the requests of reflections that still wait for a step, and end those that have lost their reason."""
        rules = await self._records.rule_texts() if step == "value" else ()
        now = self._clock.now().timestamp()
        made: list[BatchRequest] = []
        for standing in await self._records.several(ids):
            if standing.stage != step or (standing.lease_until or 0.0) >= now:
                continue
            failure = await self._failures.find(standing.turn_id)
            if failure is None:
                await self._dismiss(standing.id)
                continue
            request = request_of(self.model, failure, standing, rules=rules)
            made.append(_batch_request(standing.id, request))
        return made

    async def _dismiss(self, reflection_id: str) -> None:
        def write(connection: sa.Connection) -> None:
            standing = self._records.find(connection, reflection_id)
            if standing is not None and standing.stage != "ended":
                self._records.dismissed(connection, standing, NO_FAILURE_ANY_MORE)

        await self._database.transaction(write)

    async def _keep(self) -> None:
        """Make rules of the reflections that have all their answers."""
        table = reflections.c
        query = sa.select(table.id, table.created_at).where(table.stage == "keep", not_held(self._clock))
        query = query.order_by(table.created_at, table.id)
        ids = await self._database.run(lambda connection: [row.id for row in connection.execute(query)])
        for reflection_id in ids:
            try:
                await self._keep_one(reflection_id)
            except TakenError:
                continue
            except ModelError as error:
                _logger.warning("rules wait for their vectors: %s", type(error).__name__)
                return

    async def _keep_one(self, reflection_id: str) -> None:
        for standing in await self._records.several([reflection_id]):
            failure = await self._failures.find(standing.turn_id)
            if failure is None:
                await self._dismiss(standing.id)
            elif standing.stage == "keep":
                await self._records.keep(failure, standing)


_IS_STUCK = sa.and_(reflections.c.reason.is_not(None), reflections.c.stage.in_(list(STEPS)))
_STUCK = sa.select(reflections.c.id, reflections.c.stage).where(_IS_STUCK).order_by(reflections.c.id)


def _kind(step: StepName) -> str:
    return f"{KIND_PREFIX}{step}"


def _batch_request(reflection_id: str, request: ModelRequest) -> BatchRequest:
    return BatchRequest(
        custom_id=reflection_id,
        messages=request.messages,
        model=request.model,
        max_tokens=request.max_tokens,
        response_schema=request.response_schema,
        # Which model an answer is of stands with the answer, and settings may change between the two.
        metadata={**request.metadata, "reflection_id": reflection_id, "model": request.model},
    )
