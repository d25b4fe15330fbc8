"""How much a memory matters later, rated by a fast model in the background, never on the way to an answer."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from guidance_agent.advisor.prompts import importance_prompt
from guidance_agent.errors import ModelError
from guidance_agent.llm import structured
from guidance_agent.llm.messages import ModelRequest

if TYPE_CHECKING:
    from guidance_agent.core.memory import MemoryStream
    from guidance_agent.llm.gateway import ModelGateway

__all__ = ["MemoryRater", "rate_importance"]

_logger = logging.getLogger("guidance_agent.memory")
_AT_ONCE = 20
_ANSWER_TOKENS = 32
_THINKING_TOKENS = 1_000


class _Rating(BaseModel):
    model_config = ConfigDict(extra="forbid")
    importance: int = Field(ge=1, le=10)


async def rate_importance(gateway: ModelGateway, model: str, observation: str) -> int:
    """Return a rating from 1 (passing) to 10 (decisive).

    Raises:
        ModelError: when the model cannot be asked, or its answer is not a rating (`StructuredOutputError`).
    """
    request = ModelRequest(
        model=model, messages=importance_prompt(observation), max_tokens=_ANSWER_TOKENS, operation="importance"
    )
    answered = await structured.complete(gateway, request, output=_Rating, thinking_tokens=_THINKING_TOKENS)
    return answered.value.importance


class MemoryRater:
    """Rates the memories that have no rating yet. A memory that cannot be rated stays neutral and is tried again."""

    def __init__(self, memory: MemoryStream, gateway: ModelGateway, model: str) -> None:
        self._memory = memory
        self._gateway = gateway
        self._model = model

    async def run(self) -> int:
        """Rate what is due and return how many were rated."""
        rated = 0
        for item in await self._memory.unrated(_AT_ONCE):
            try:
                importance = await rate_importance(self._gateway, self._model, item.text)
            except ModelError as error:
                await self._memory.set_importance(item.id, None)
                _logger.info("memory not rated: id=%s error=%s", item.id, type(error).__name__)
                continue
            await self._memory.set_importance(item.id, importance)
            rated += 1
        return rated
