"""A fast judge of one sentence, asked while the rest of the answer waits behind it.

It may only say one of two words. Anything else, and a provider that fails, is no answer, and the policy for sentences
without one decides. How long an answer is waited for is the business of whoever asks.
"""

from __future__ import annotations

import hashlib
import logging
from collections import OrderedDict
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict

from guidance_agent.compliance.judge_prompt import sentence_prompt
from guidance_agent.compliance.policy_version import judging_version
from guidance_agent.errors import ModelError
from guidance_agent.llm import structured
from guidance_agent.llm.messages import ModelRequest

if TYPE_CHECKING:
    from guidance_agent.llm.gateway import ModelGateway

__all__ = ["SentenceJudge", "SentenceOpinion"]

SentenceOpinion = Literal["breach", "permitted"]

_logger = logging.getLogger("guidance_agent.compliance")
_REMEMBERED = 4_096
_ANSWER_TOKENS = 1_024
_THINKING_TOKENS = 2_048


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    verdict: SentenceOpinion


class SentenceJudge:
    """Asks a fast model about single sentences, and remembers what it said. Belongs to one event loop.

    Args:
        gateway: The way to the model.
        model: The model; a fast one.
        remembered: How many answers are kept; the one not used for the longest time goes first.
    """

    def __init__(self, gateway: ModelGateway, model: str, *, remembered: int = _REMEMBERED) -> None:
        self.model = model
        self._gateway = gateway
        self._remembered = remembered
        self._known: OrderedDict[bytes, SentenceOpinion] = OrderedDict()

    async def ask(
        self,
        sentence: str,
        *,
        context: str,
        check: str,
        turn_id: str | None = None,
        consultation_id: str | None = None,
    ) -> SentenceOpinion | None:
        """Return whether a sentence is a breach; None when the judge gave no answer that can be used.

        Args:
            sentence: The sentence.
            context: What stands before it.
            check: What it may offend against, by the gate's name.
            turn_id: Kept with the usage of the call, as `consultation_id` is.

        Raises:
            ConfigurationError: the judge cannot be called as things are set up.
        """
        key = _key(judging_version(), self.model, sentence, context, check)
        known = self._known.get(key)
        if known is not None:
            self._known.move_to_end(key)
            return known
        ids = {"turn_id": turn_id, "consultation_id": consultation_id}
        request = ModelRequest(
            model=self.model,
            messages=sentence_prompt(sentence, context=context, check=check),
            max_tokens=_ANSWER_TOKENS,
            temperature=0.0,
            operation="gate",
            metadata={name: value for name, value in ids.items() if value is not None},
        )
        try:
            answered = await structured.complete(
                self._gateway, request, output=_Answer, thinking_tokens=_THINKING_TOKENS
            )
        except ModelError as error:
            # An answer must not end because a second opinion on one of its sentences cannot be had.
            _logger.warning("sentence not judged: turn=%s error=%s", turn_id, type(error).__name__)
            return None
        self._known[key] = answered.value.verdict
        if len(self._known) > self._remembered:
            self._known.popitem(last=False)
        return answered.value.verdict


def _key(*parts: str) -> bytes:
    """Return a key that holds no customer's words."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.digest()
