"""The validator: judges a whole reply by rules and by a model, and computes the verdict from what they say.

A judge answers nine checks and nothing else. Whether the reply passed is computed (`verdict.py`); which checks apply is
decided here; what the rules found counts whatever the judge says. The ways in which a judge can be wrong all end on the
same side:

- An answer that cannot be read in exactly one way makes a verdict without the judge: unreadable, not passed.
- A check that the judge leaves out, or calls not applicable, has failed.
- A quote that is not in the text is dropped, and the verdict says so.
- A provider that fails is an error and no verdict: whoever asked tries again, and the reply stays unjudged.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import date
from functools import cached_property
from typing import TYPE_CHECKING

from guidance_agent.compliance.judge_answer import JudgeAnswer
from guidance_agent.compliance.reply import THINKING_TOKENS, Asked, Reply, ReplyJudging
from guidance_agent.compliance.verdict import Verdict
from guidance_agent.core.clock import Clock, SystemClock
from guidance_agent.core.text import is_storable
from guidance_agent.core.types import CustomerProfile, HistoryEntry
from guidance_agent.errors import ConfigurationError, InputError, StructuredOutputError
from guidance_agent.knowledge.loader import Knowledge
from guidance_agent.llm import structured
from guidance_agent.llm.batch_request import BatchRequest

if TYPE_CHECKING:
    from guidance_agent.llm.gateway import ModelGateway
    from guidance_agent.llm.messages import ModelRequest

__all__ = ["ComplianceValidator", "GuidanceValidator"]


class GuidanceValidator:
    """Judges replies. Holds nothing of them; may be shared.

    Args:
        gateway: The way to the judge.
        model: The judge, such as `anthropic/claude-sonnet-5`; better not the model that wrote the reply.
        knowledge: The dated figures that replies are compared with.
        clock: Says which day it is, where a call does not.
    """

    def __init__(self, gateway: ModelGateway, model: str, knowledge: Knowledge, *, clock: Clock | None = None) -> None:
        self.model = model
        self._gateway = gateway
        self._clock = clock or SystemClock()
        self._thinking: dict[str, bool] = {}
        self.replies = ReplyJudging(knowledge)

    @cached_property
    def policy_version(self) -> str:
        """Fingerprint of rules, policy, checks and the judge's prompt; the first use reads files."""
        return self.replies.policy_version

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
        """Return the verdict on a reply.

        Args:
            text: The reply as the customer saw it; offsets of the verdict count its code points.
            question: What it answers.
            history: What was said before, as the advisor takes it.
            customer: The customer's profile, so that needs for care are seen.
            complete: Whether the reply came to its end; what a reply cut off has left out is not held against it.
            on: The day on which it was said; None is today.
            turn_id: Kept with the usage of the call, as `consultation_id` is.

        Raises:
            ModelError: the judge could not be asked; `retryable` says whether it is worth another try.
            ConfigurationError: the judge cannot be called as things are set up.
            InputError: what was passed is no text that can be stored, or no history.
        """
        if not is_storable(text):
            raise InputError("The reply holds NUL or a lone surrogate. Pass the text as it was delivered.")
        reply = Reply(
            text=text,
            question=question,
            history=history,
            customer=customer,
            complete=complete,
            on=on or self._clock.today(),
        )
        if not text.strip():
            return self.replies.of_nothing(reply)
        ids = {"turn_id": turn_id, "consultation_id": consultation_id}
        metadata = {name: value for name, value in ids.items() if value is not None}
        request = await asyncio.to_thread(self.replies.request, reply, model=self.model, metadata=metadata)
        examined = await asyncio.to_thread(self.replies.examine, reply)
        try:
            answered = await structured.complete(
                self._gateway, request, output=JudgeAnswer, thinking_tokens=THINKING_TOKENS
            )
        except StructuredOutputError as error:
            asked = Asked(error.model, error.cost_usd, error.simulated)
            return self.replies.unreadable(reply, examined, why=str(error), asked=asked)
        call = answered.completion.call
        asked = Asked(call.model, None if call.cost is None else call.cost.usd, call.simulated)
        return await asyncio.to_thread(self.replies.verdict, reply, examined, answered.value, asked)

    validate_async = validate

    def validate_sync(
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
        """Return what `validate` returns, for scripts without `await`.

        The gateway is used on an event loop of its own for this call, and its connections are closed afterwards; one
        that is in use elsewhere cannot be.
        """
        from guidance_agent.core.loop_thread import LoopThread

        if self._gateway.is_in_use or _in_event_loop():
            raise ConfigurationError(
                "The synchronous call uses the gateway on an event loop of its own, and one runs here or has "
                "connections of the gateway. Use `await validate(...)`, which notebooks understand too."
            )

        async def work() -> Verdict:
            try:
                return await self.validate(
                    text,
                    question=question,
                    history=history,
                    customer=customer,
                    complete=complete,
                    on=on,
                    turn_id=turn_id,
                    consultation_id=consultation_id,
                )
            finally:
                await self._gateway.release()

        with LoopThread() as loop:
            return loop.call(work())

    async def batch_request(
        self, reply: Reply, *, custom_id: str, model: str | None = None, metadata: Mapping[str, str] | None = None
    ) -> BatchRequest:
        """Return the request of a batch whose body is that of an interactive call; its answer is a `JudgeAnswer`.

        Args:
            reply: The reply; one of blanks has no request.
            custom_id: The caller's id of the item.
            model: The judge; None is the validator's.
            metadata: Kept with the item, and sent nowhere.

        Raises:
            ConfigurationError: the judge cannot be called as things are set up.
        """
        request = await asyncio.to_thread(self.replies.request, reply, model=model or self.model)
        thinks = await self._always_thinks(request)
        return BatchRequest(
            custom_id=custom_id,
            model=request.model,
            messages=request.messages,
            temperature=request.temperature,
            max_tokens=request.max_tokens + (THINKING_TOKENS if thinks else 0),
            metadata=dict(metadata or {}),
        )

    async def _always_thinks(self, request: ModelRequest) -> bool:
        if request.model not in self._thinking:
            call, _ = await self._gateway.routed(request)
            self._thinking[request.model] = call.traits.always_thinks
        return self._thinking[request.model]


ComplianceValidator = GuidanceValidator


def _in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
