"""The check set: questions that are answered with the rules of a release, and checked without a model.

Each question is answered twice by the model that answers customers, with the rules in force and with those that are to
be, from the same prompt in everything else. The rules of the gate read both answers. A release may not be worse: no
question whose answer was clean may have one with a breach, and the questions of the failures that led to a new rule
must have a clean one. An answer that did not come to its end is not clean.

Models do not say the same twice. What a check set cannot show is that a rule helps; it shows that a rule does no harm
that the program can see, on questions that are always the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Protocol

import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict

from guidance_agent.advisor.conversation import read_conversation
from guidance_agent.advisor.prompts import FigureLine, ReleasedRules, TurnContext, build_guidance_prompt
from guidance_agent.compliance.rule_results import TextRules
from guidance_agent.core.schema import consultations, turns
from guidance_agent.core.shipped import read_shipped
from guidance_agent.core.types import AdvisorProfile, CustomerProfile, JsonObject
from guidance_agent.knowledge.tax_years import tax_year
from guidance_agent.llm.messages import ModelRequest

if TYPE_CHECKING:
    from guidance_agent.core.clock import Clock
    from guidance_agent.core.database import Database
    from guidance_agent.knowledge.loader import Knowledge
    from guidance_agent.llm.gateway import ModelGateway

__all__ = ["CheckCase", "CheckReport", "CheckSet", "CheckedAnswer", "ModelCheckSet", "failed_cases", "shipped_cases"]

_ANSWER_TOKENS = 2_000
_AT_ONCE = 4
_MOST_FAILED = 20


class CheckCase(BaseModel):
    """One question of a check set.

    Attributes:
        name: What it is called in reports.
        question: The question.
        customer: Who asks, as a prompt shows it.
        must_pass: Whether its answer must be clean, whatever it was before.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    question: str
    customer: JsonObject = {}
    must_pass: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedAnswer:
    """What the rules of the gate say of one answer; `breaches` are names of checks, `unfinished` one of them."""

    case: str
    must_pass: bool
    breaches: tuple[str, ...]
    cost_usd: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    """The answers to all questions with one set of rules."""

    rules_version: int
    answers: tuple[CheckedAnswer, ...] = field(default=())

    @property
    def failed(self) -> tuple[str, ...]:
        """The questions whose answers are not clean."""
        return tuple(answer.case for answer in self.answers if answer.breaches)

    def worse_than(self, before: CheckReport) -> tuple[str, ...]:
        """Return the questions that speak against these rules."""
        failed_before = set(before.failed)
        return tuple(
            answer.case
            for answer in self.answers
            if answer.breaches and (answer.must_pass or answer.case not in failed_before)
        )


class CheckSet(Protocol):
    """What a release is tried on. `cases` are added for one release: the failures behind its new rules."""

    async def run(self, rules: ReleasedRules, *, cases: Sequence[CheckCase] = ()) -> CheckReport: ...


class ModelCheckSet:
    """Answers the questions with a model, from the prompt that customers are answered from.

    Args:
        gateway: The way to the model.
        model: The model that answers customers.
        knowledge: The figures of the day, for the prompt and for the checks.
        clock: Says which day it is.
        advisor: In whose name the answers are given.
        cases: The questions; None takes those of the package.
    """

    def __init__(
        self,
        gateway: ModelGateway,
        model: str,
        knowledge: Knowledge,
        clock: Clock,
        *,
        advisor: AdvisorProfile | None = None,
        cases: Sequence[CheckCase] | None = None,
    ) -> None:
        self._gateway = gateway
        self._model = model
        self._knowledge = knowledge
        self._clock = clock
        self._advisor = advisor or AdvisorProfile.default()
        self.cases = tuple(shipped_cases() if cases is None else cases)
        self._rules = TextRules(knowledge)

    async def run(self, rules: ReleasedRules, *, cases: Sequence[CheckCase] = ()) -> CheckReport:
        """Answer all questions and check the answers.

        Raises:
            ModelError: a question could not be answered; there is no report then.
            ConfigurationError: the model cannot be called as things are set up.
        """
        day, free = self._clock.today(), asyncio.Semaphore(_AT_ONCE)

        async def one(case: CheckCase) -> CheckedAnswer:
            async with free:
                return await self._checked(case, rules, day)

        asked = [*self.cases, *cases]
        working = [asyncio.create_task(one(case), name=f"check set: {case.name}") for case in asked]
        try:
            answers = await asyncio.gather(*working)
        finally:
            for task in working:
                task.cancel()
            await asyncio.gather(*working, return_exceptions=True)
        return CheckReport(rules_version=rules.version, answers=tuple(answers))

    async def _checked(self, case: CheckCase, rules: ReleasedRules, day: date) -> CheckedAnswer:
        completion = await self._gateway.complete(self.request(case, rules, day))
        examined = await asyncio.to_thread(self._rules.examine, completion.text, question=case.question, on=day)
        breaches: list[str] = [breach.check for breach in examined.breaches]
        if completion.finish_reason != "stop" or not completion.text.strip():
            breaches.append("unfinished")
        cost = completion.call.cost
        return CheckedAnswer(
            case=case.name,
            must_pass=case.must_pass,
            breaches=tuple(dict.fromkeys(breaches)),
            cost_usd=None if cost is None else cost.usd,
        )

    def request(self, case: CheckCase, rules: ReleasedRules, day: date) -> ModelRequest:
        """Return the request for the answer to a question."""
        conversation = read_conversation(CustomerProfile(customer_id="check-set"), [_asked(case.question)])
        figures = tuple(
            FigureLine(item.name, f"{item.text} ({item.period})") for item in self._knowledge.figures_on(day)
        )
        context = TurnContext(today=day.isoformat(), tax_year=tax_year(day), figures=figures)
        return ModelRequest(
            model=self._model,
            messages=build_guidance_prompt(self._advisor, case.customer, conversation, context, rules),
            max_tokens=_ANSWER_TOKENS,
            operation="check_set",
        )


@cache
def shipped_cases() -> tuple[CheckCase, ...]:
    """Return the questions that come with the package."""

    cases = read_shipped(resources.files("guidance_agent.learning") / "check_set.yaml", list[CheckCase])
    return tuple(
        case.model_copy(
            update={"customer": CustomerProfile.parse({"customer_id": case.name, **case.customer}).prompt_values()}
        )
        for case in cases
    )


async def failed_cases(database: Database, turn_ids: Sequence[str]) -> tuple[CheckCase, ...]:
    """Return the questions of failed turns, the newest of them, as such that must be answered cleanly now."""
    query = (
        sa.select(turns.c.id, turns.c.question, consultations.c.profile)
        .join(consultations, consultations.c.id == turns.c.consultation_id)
        .where(turns.c.id.in_(list(turn_ids)))
        .order_by(turns.c.started_at.desc(), turns.c.id)
        .limit(_MOST_FAILED)
    )
    rows = await database.run(lambda connection: connection.execute(query).all())
    return tuple(CheckCase(name=row.id, question=row.question, customer=row.profile, must_pass=True) for row in rows)


def _asked(question: str) -> dict[str, str]:
    return {"role": "customer", "content": question}
