"""The turn behind `provide_guidance`: nothing of an answer is shown before a whole version of it has passed.

    first version ─ judged ─ passed, sure ────────────────────────────────────► delivered
                       │  └─ passed, not sure ─ one stronger version ─ judged ─► the better of the two
                       └─ failed ─ written again with what failed ─ judged ─ …  (at most `refinement.rounds` times)
                                                                     └─ failed ─► review, and error or safe answer

Each version passes a gate of its own and gets its closing before it is judged, so what is judged is what would be
delivered, character for character. Verdicts on versions are stored as `candidate:<number>` as they come, with the text,
which nothing else keeps. Delivery, journal and end of the turn are those of every turn.

A version that says what an earlier one said has that one's verdict, unless that could not be read: nobody asks a judge
until it gives in.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from guidance_agent.advisor.candidates import Candidate, Draft, better_of, next_step
from guidance_agent.advisor.events import AnswerEnd
from guidance_agent.advisor.gated_answer import GatedAnswer
from guidance_agent.advisor.turn_plan import TurnPlan
from guidance_agent.advisor.turn_run import TurnRun, answer_end
from guidance_agent.compliance.safe_answer import safe_answer
from guidance_agent.compliance.turn_judge import CUT_OFF, new_verdict
from guidance_agent.compliance.verdict import Verdict
from guidance_agent.core.verdicts import CANDIDATE
from guidance_agent.errors import GuidanceNotCompliantError, JournalError, ModelError
from guidance_agent.llm.messages import ModelRequest
from guidance_agent.llm.model_stream import ModelStream

if TYPE_CHECKING:
    from guidance_agent.advisor.services import AdvisorServices
    from guidance_agent.advisor.turn_trace import TurnTrace

__all__ = ["RefinedRun"]

_BEFORE_DEADLINE = 1.0
"""A passing version is delivered this many seconds before the turn's time is up, however far a stronger one is."""

_logger = logging.getLogger("guidance_agent.advisor")


class RefinedRun(TurnRun):
    """A running turn whose answer has passed its checks before anybody sees it."""

    def __init__(self, plan: TurnPlan, services: AdvisorServices, trace: TurnTrace) -> None:
        super().__init__(plan, services, trace)
        self._judged: dict[str, Verdict] = {}
        self._judge_costs: list[float | None] = []
        self._is_safe_answer = False

    async def _answer(self, notes: str | None) -> None:
        settings, first = self._services.settings.refinement, self.plan.answer(notes, self._sums)
        number, candidate = 0, await self._candidate(0, first)
        while (step := next_step(candidate, number, settings)) == "refine":
            number += 1
            candidate = await self._refined(number, first, candidate)
        if step == "give_up":
            self._give_up(candidate.verdict, versions=number + 1)
            return
        if step == "strengthen":
            candidate = await self._strengthened(number + 1, first, candidate)
        self._gated, self._stream = candidate.gated, candidate.stream
        candidate.draft.deliver()
        self._answer_ended = True

    async def _refined(self, number: int, first: ModelRequest, last: Candidate) -> Candidate:
        request = self.plan.candidates.refine(first, last.text, last.verdict)
        return await self._candidate(number, request)

    async def _strengthened(self, number: int, first: ModelRequest, passed: Candidate) -> Candidate:
        """Return the better of a version that passed and a stronger one; the first where there is no second."""
        deadline = None if self._deadline is None else self._deadline.when()
        try:
            async with asyncio.timeout_at(None if deadline is None else deadline - _BEFORE_DEADLINE):
                return better_of(passed, await self._refined(number, first, passed))
        except (ModelError, TimeoutError) as error:
            _logger.warning("answer not strengthened: turn=%s error=%s", self.plan.turn_id, type(error).__name__)
            return passed

    async def _candidate(self, number: int, request: ModelRequest) -> Candidate:
        with self.trace.candidate(number):
            return await self._version(number, self._services.gateway.stream(request))

    async def _version(self, number: int, stream: ModelStream) -> Candidate:
        draft = Draft(self.outbox)
        async with GatedAnswer(self.plan.gate(), draft, self._services.clock.now, self.trace.gate) as gated:
            await self._read_answer(stream, gated)
            gated.decide_rest()
            end = answer_end(gated, stream)
            gated.add_closing(is_whole=end == "stop", has_failed=False)
        text = draft.released_text
        verdict = self._judged.get(text)
        if verdict is not None:
            verdict = verdict.model_copy(update={"cost_usd": 0.0})
        else:
            verdict = await self.plan.candidates.judge(text, end not in CUT_OFF)
            if verdict.unreadable is None:
                self._judged[text] = verdict
            self._judge_costs.append(0.0 if verdict.judge_model is None else verdict.cost_usd)
        candidate = Candidate(draft, gated, stream, text, verdict)
        await self._store(number, candidate)
        return candidate

    async def _store(self, number: int, candidate: Candidate) -> None:
        # The verdict refers to the turn's row, which the journal writes with the turn's first event.
        if not await self.outbox.written():
            raise self.outbox.error or JournalError(f"Turn {self.plan.turn_id!r} could not be recorded.")
        new = new_verdict(
            candidate.verdict,
            turn_id=self.plan.turn_id,
            purpose=f"{CANDIDATE}{number}",
            text=candidate.text,
            reviewed=next_step(candidate, number, self._services.settings.refinement) == "give_up"
            and not any(verdict.passed for verdict in self._judged.values()),
        )
        await self._services.verdicts.store_candidate(new)

    def _give_up(self, verdict: Verdict, *, versions: int) -> None:
        """End the turn without any version of the answer."""
        failed = tuple(dict.fromkeys(result.check for result in verdict.failures))
        why = f"the last failed {', '.join(failed)}" if failed else "no verdict on the last could be read"
        _logger.warning("no version of an answer passed: turn=%s versions=%d: %s", self.plan.turn_id, versions, why)
        if self._services.settings.refinement.never_passes == "safe_answer":
            self._is_safe_answer = self._answer_ended = True
            self.outbox.add_text(safe_answer())
            return
        raise GuidanceNotCompliantError(
            f"No version of the answer in turn {self.plan.turn_id!r} passed its checks: of {versions}, {why}. Nothing "
            "was shown, and a review is open. Ask again in other words, or have a person answer.",
            turn_id=self.plan.turn_id,
            failed=failed,
        )

    @property
    def _finish_reason(self) -> AnswerEnd | None:
        return "safe_answer" if self._is_safe_answer else super()._finish_reason

    def _cost(self) -> float | None:
        written = super()._cost()
        judged = [cost for cost in self._judge_costs if cost is not None]
        if written is None or len(judged) < len(self._judge_costs):
            return None
        return written + sum(judged)
