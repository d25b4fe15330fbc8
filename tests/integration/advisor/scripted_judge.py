"""A judge that says what a test dictates, and a dispatcher that asks it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import date, timedelta

from guidance_agent import Runtime
from guidance_agent.compliance.judging import BackgroundJudging
from guidance_agent.compliance.turn_judge import Judge, TurnJudge
from guidance_agent.compliance.verdict import CHECKS, CheckName, CheckResult, Verdict
from guidance_agent.core.clock import Clock
from guidance_agent.core.durable import DurableRunner, Perform, open_runner
from guidance_agent.core.slots import WorkerSlot
from guidance_agent.core.transcript import text_hash
from guidance_agent.core.types import CustomerProfile, HistoryEntry

POLICY = "policy-of-the-test"


def verdict_on(
    text: str,
    *failures: tuple[CheckName, int, int],
    without_words: Sequence[CheckName] = (),
    unreadable: str | None = None,
) -> Verdict:
    """Return a verdict in which the named checks failed on the named spans, and the others passed."""
    failed = {name for name, _, _ in failures} | set(without_words)

    def result(name: CheckName, start: int | None, end: int | None, *, fails: bool) -> CheckResult:
        return CheckResult(
            check=name,
            status="fail" if fails else "pass",
            severity="high" if fails else None,
            requirement="R",
            explanation="because",
            quote=None if start is None else text[start:end],
            start=start,
            end=end,
            source="judge",
        )

    return Verdict(
        checks=(
            *(result(name, start, end, fails=True) for name, start, end in failures),
            *(result(name, None, None, fails=True) for name in without_words),
            *(result(name, None, None, fails=False) for name in CHECKS if name not in failed),
        ),
        confidence=0.9,
        reasoning="r",
        unreadable=unreadable,
        judge_model="test/judge",
        policy_version=POLICY,
        text_hash=text_hash(text),
        cost_usd=0.01,
    )


class ScriptedJudge:
    """Passes every text, unless `answer` says otherwise or raises. Remembers what it was asked."""

    def __init__(self, answer: Callable[[str], Verdict] = verdict_on) -> None:
        self.answer = answer
        self.asked: list[dict[str, object]] = []
        self.at_once = 0
        self.most_at_once = 0
        self.seconds = 0.0

    @property
    def policy_version(self) -> str:
        return POLICY

    @property
    def texts(self) -> list[object]:
        return [asked["text"] for asked in self.asked]

    async def validate(
        self,
        text: str,
        *,
        question: str,
        history: Sequence[HistoryEntry] = (),
        customer: CustomerProfile | None = None,
        complete: bool = True,
        on: date | None = None,
        turn_id: str | None = None,
        consultation_id: str | None = None,
    ) -> Verdict:
        self.asked.append(
            {
                "text": text,
                "question": question,
                "history": [dict(entry) for entry in history],
                "customer": customer,
                "complete": complete,
                "on": on,
                "turn_id": turn_id,
                "consultation_id": consultation_id,
            }
        )
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(self.seconds)
        self.at_once -= 1
        return self.answer(text)


@contextlib.asynccontextmanager
async def judging(
    runtime: Runtime,
    judge: Judge,
    *,
    clock: Clock | None = None,
    deadline: timedelta = timedelta(days=1),
    eager: bool = True,
    role: str = "test",
) -> AsyncIterator[BackgroundJudging]:
    """Have a dispatcher on the records of a runtime that judges nothing itself."""
    slot = WorkerSlot(runtime.database, clock or runtime.clock, host="host", role=role, holder=runtime.journal.owner)

    async def open_durable(perform: Perform, ended: Callable[[], None]) -> DurableRunner:
        return await open_runner(runtime.database.url, slot, perform, ended=ended)

    of_turns = TurnJudge(
        runtime.verdicts,
        judge,
        clock or runtime.clock,
        deadline=deadline,
        at_once=4,
        announce=runtime.journal.announce,
        tracing=runtime.tracing,
    )
    async with BackgroundJudging(
        runtime.verdicts,
        of_turns,
        clock or runtime.clock,
        open_durable,
        is_quiet=lambda: not runtime.journal.live_turns,
        ended=lambda: None,
        eager=eager,
    ) as dispatcher:
        yield dispatcher
