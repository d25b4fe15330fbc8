"""The answer of one turn on its way through the gate: what is released, asked, and put on record.

Questions about sentences are asked while the model's text goes on. Each has a deadline of its own; an answer that is
late or cannot be read is no answer, and the gate's policy decides. Every action of the gate is a row that is written in
the same commit as the text that it belongs to.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, Self

from guidance_agent.advisor.events import Event, Withheld
from guidance_agent.advisor.outbox import READ_AHEAD
from guidance_agent.compliance.closing import closing_for
from guidance_agent.compliance.gate import Marked, Question, Released, TextGate, Withholding
from guidance_agent.compliance.sentences import Finding
from guidance_agent.core.schema import gate_actions
from guidance_agent.errors import GuidanceAgentError
from guidance_agent.tracing.attributes import GATE_ANSWER

if TYPE_CHECKING:
    import sqlalchemy as sa

    from guidance_agent.advisor.turn_trace import GateTrace
    from guidance_agent.core.journal import Row

__all__ = ["AnswerGate", "AnswerSink", "GateAction", "GatedAnswer", "SentenceAsker"]

GateAction = Literal["withheld", "flagged", "stopped", "never_shown", "released_after_ask", "closing"]

ASKED_AT_ONCE = 8
AT_ONCE = 2_048
"""Characters that pass the gate before others have their turn."""

_logger = logging.getLogger("guidance_agent.gate")


class SentenceAsker(Protocol):
    """Somebody who decides sentences that the rules leave undecided."""

    async def ask(
        self,
        sentence: str,
        *,
        context: str,
        check: str,
        turn_id: str | None = None,
        consultation_id: str | None = None,
    ) -> Literal["breach", "permitted"] | None:
        """Return what the sentence is; None when the answer cannot be read or was refused."""


class AnswerSink(Protocol):
    """Where the text goes that may be shown: the outbox, or a draft that nobody sees yet."""

    turn_id: str
    consultation_id: str

    @property
    def text_length(self) -> int:
        """Where the next text begins, once its turn to be numbered has come."""

    @property
    def released_text(self) -> str:
        """All text so far."""

    def add_text(self, text: str) -> None:
        """Take a piece of text."""

    def add(self, make: Callable[[int], Event]) -> None:
        """Take a public event; `make` gets its number."""

    def add_row(self, table: sa.Table, make: Callable[[int], Row]) -> None:
        """Take a row that is written with what follows; `make` gets where that text begins."""


class AnswerGate(NamedTuple):
    """What makes the gate of one answer, and what it goes by.

    Attributes:
        prepare: Begins to read what a gate takes, in a thread.
        make: Makes the gate once that has been read.
        policy_version: Fingerprint of its rules and policy.
        asker: Answers its questions; None where it asks none.
        deadline: Seconds for an answer.
        adds_closing: Whether the closing material is added where the answer lacks it.
    """

    prepare: Callable[[], None]
    make: Callable[[], Awaitable[TextGate]]
    policy_version: str
    asker: SentenceAsker | None
    deadline: float
    adds_closing: bool


class GatedAnswer:
    """Takes the model's text and gives the outbox, or a draft, what may be shown.

    An async context manager that owns its questions. Leaving it drops those that are open; what they hold stays held.
    The gate is made when there is text for it: its rules are read while the model thinks.
    """

    def __init__(
        self, answer_gate: AnswerGate, outbox: AnswerSink, now: Callable[[], datetime], trace: GateTrace
    ) -> None:
        self._settings = answer_gate
        self._gate: TextGate | None = None
        self._unread = ""
        """What came before there was a gate."""
        self._outbox = outbox
        self._now = now
        self._trace = trace
        self._actions = 0
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._dropped: list[asyncio.Task[None]] = []
        # Protects the fast model's limits from an answer that is all doubt.
        self._slots = asyncio.Semaphore(ASKED_AT_ONCE)

    async def __aenter__(self) -> Self:
        self._settings.prepare()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._drop_questions()
        if self._dropped:
            await asyncio.wait(self._dropped)

    @property
    def stopped(self) -> bool:
        """Whether the gate has ended the answer."""
        return self._gate is not None and self._gate.stopped

    async def pass_through(self, text: str) -> None:
        """Take the next piece of the model's text, and wait while too much of it waits for answers.

        Raises:
            ConfigurationError, KnowledgeError: when there can be no gate; nothing of the text is shown.
        """
        gate = await self._opened()
        self.feed(text[:AT_ONCE])
        for start in range(AT_ONCE, len(text), AT_ONCE):
            # Other turns go on while a long piece is read.
            await asyncio.sleep(0)
            self.feed(text[start : start + AT_ONCE])
        while gate.queued >= READ_AHEAD and self._tasks and not self.stopped:
            await asyncio.wait(self._tasks.values(), return_when=asyncio.FIRST_COMPLETED)

    def feed(self, text: str) -> None:
        """Take the next piece of the model's text at once; where there is no gate yet, it waits for one."""
        if self._gate is None:
            self._unread += text
            return
        self._release(self._gate.feed(text))
        self._ask_what_came_up()

    async def finish(self, *, ask: bool) -> None:
        """Take the end of the model's text, and wait for the answers to open questions, each until its deadline.

        Args:
            ask: Whether the last sentence is whole, so that a question about it is worth asking.
        """
        gate = await self._opened()
        self._release(gate.finish(ask=ask))
        self._ask_what_came_up()
        while self._tasks and not self.stopped:
            await asyncio.wait(self._tasks.values(), return_when=asyncio.FIRST_COMPLETED)

    def decide_rest(self) -> None:
        """Decide what is held by the rules as it stands, without waiting for anybody.

        What has not come to a gate by then is not shown.
        """
        gate = self._gate
        if gate is None:
            return
        self._release(gate.finish())
        for number in self._drop_questions():
            self._release(gate.answer(number, None))

    def add_closing(self, *, is_whole: bool, has_failed: bool) -> None:
        """Add the closing material that is due.

        Args:
            is_whole: Whether the answer ended as the model meant it to.
            has_failed: Whether it ended with an error; if nothing was said before it, the error speaks for itself.
        """
        released = self._outbox.released_text
        if not self._settings.adds_closing or (has_failed and not released):
            return
        closing = closing_for(released, is_whole=is_whole)
        if closing:
            self._record("closing", shown=len(closing), replacement=closing)
            self._outbox.add_text(closing)

    def never_shown(self, at: int) -> Row | None:
        """Return the row about what is still held, which nobody will see; None when nothing is.

        Args:
            at: Length of the released text.
        """
        held = "" if self._gate is None else self._gate.held
        if not held:
            return None
        row = self._row("never_shown", at, at, withheld=held)
        self._trace.acted(row)
        return row

    async def _opened(self) -> TextGate:
        """Return the gate, made now if there was none."""
        if self._gate is None:
            self._gate = await self._settings.make()
            unread, self._unread = self._unread, ""
            self.feed(unread)
        return self._gate

    # Questions

    def _ask_what_came_up(self) -> None:
        for question in () if self._gate is None else self._gate.questions():
            task = asyncio.create_task(self._ask(question), name=f"gate question {question.number}")
            self._tasks[question.number] = task

    async def _ask(self, question: Question) -> None:
        with self._trace.asked(question) as span:
            answer = await self._answer_in_time(question)
            span.set({GATE_ANSWER: answer or "none"})
        if self._tasks.pop(question.number, None) is not None and self._gate is not None:
            self._release(self._gate.answer(question.number, answer))

    async def _answer_in_time(self, question: Question) -> Literal["breach", "permitted"] | None:
        try:
            async with asyncio.timeout(self._settings.deadline), self._slots:
                return await self._answer_of(question)
        except TimeoutError:
            _logger.info("a sentence was not decided in time: turn=%s check=%s", self._outbox.turn_id, question.check)
        except GuidanceAgentError as error:
            _logger.warning(
                "a sentence could not be asked about: turn=%s error=%s", self._outbox.turn_id, type(error).__name__
            )
        except Exception:
            _logger.exception("asking about a sentence failed unexpectedly: turn=%s", self._outbox.turn_id)
        return None

    async def _answer_of(self, question: Question) -> Literal["breach", "permitted"] | None:
        if self._settings.asker is None:
            return None
        return await self._settings.asker.ask(
            question.sentence,
            context=question.context,
            check=question.check,
            turn_id=self._outbox.turn_id,
            consultation_id=self._outbox.consultation_id,
        )

    def _drop_questions(self) -> Sequence[int]:
        """Forget the open questions and return their numbers, in order."""
        numbers = sorted(self._tasks)
        for number in numbers:
            task = self._tasks.pop(number)
            task.cancel()
            self._dropped.append(task)
        return numbers

    # What comes out

    def _release(self, released: Sequence[Released]) -> None:
        for item in released:
            if isinstance(item, str):
                if item:
                    self._outbox.add_text(item)
            elif isinstance(item, Marked):
                self._mark(item)
            else:
                self._withhold(item)

    def _mark(self, item: Marked) -> None:
        self._record(
            "released_after_ask" if item.is_permitted else "flagged",
            shown=len(item.text),
            check=item.check,
            findings=item.findings,
            asked=item.asked,
        )
        self._outbox.add_text(item.text)

    def _withhold(self, item: Withholding) -> None:
        outbox = self._outbox
        self._record(
            "stopped" if item.stops else "withheld",
            shown=len(item.replacement),
            check=item.check,
            withheld=item.withheld,
            replacement=item.replacement,
            findings=item.findings,
            asked=item.asked,
        )
        outbox.add(
            lambda sequence: Withheld(
                turn_id=outbox.turn_id,
                sequence=sequence,
                start=outbox.text_length,
                end=outbox.text_length + len(item.replacement),
                check=item.check,
                reason=item.reason,
            )
        )
        if item.replacement:
            outbox.add_text(item.replacement)

    def _record(
        self,
        action: GateAction,
        *,
        shown: int,
        check: str | None = None,
        withheld: str | None = None,
        replacement: str | None = None,
        findings: Sequence[Finding] = (),
        asked: str | None = None,
    ) -> None:
        """Have a row written with what follows; `shown` is the length of the text that it is about."""
        row = self._row(action, 0, 0, check, withheld, replacement, findings, asked)
        self._trace.acted(row)
        self._outbox.add_row(gate_actions, lambda place: {**row, "start": place, "end": place + shown})

    def _row(
        self,
        action: GateAction,
        start: int,
        end: int,
        check: str | None = None,
        withheld: str | None = None,
        replacement: str | None = None,
        findings: Sequence[Finding] = (),
        asked: str | None = None,
    ) -> Row:
        number, self._actions = self._actions, self._actions + 1
        return {
            "turn_id": self._outbox.turn_id,
            "number": number,
            "action": action,
            "check": check,
            "start": start,
            "end": end,
            "withheld_text": withheld,
            "replacement": replacement,
            "findings": [dataclasses.asdict(finding) for finding in findings],
            "policy_version": self._settings.policy_version,
            "asked": asked,
            "created_at": self._now(),
        }
