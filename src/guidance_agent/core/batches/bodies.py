"""From an item's record to the call that it is: the same for its size, its row in a file, and an answer online."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from importlib import resources

from guidance_agent.llm.gateway import ModelGateway
from guidance_agent.llm.messages import Message, ModelRequest
from guidance_agent.llm.providers.planning import PERSONAL_PARTS
from guidance_agent.llm.structured import asking_in_words
from guidance_agent.llm.transports.base import PreparedCall

__all__ = ["CORRECTION_BYTES", "INVALID", "corrected", "prepared_call", "shared_prefix"]

INVALID = "invalid: "
"""What the reason of an item begins with that was answered in a form that cannot be used."""

CORRECTION_BYTES = 1_000
"""How much longer a request may become when it is sent again with the reason."""

_LONGEST_REASON = 400


async def prepared_call(gateway: ModelGateway, request: ModelRequest) -> PreparedCall:
    """Return the call as it is sent; a schema goes into words where the model does not hold one itself.

    Raises:
        ConfigurationError: the model cannot be called as things are set up.
    """
    call, _ = await gateway.routed(request)
    if request.response_schema is None or call.traits.native_schema:
        return call
    messages = asking_in_words(request.messages, request.response_schema)
    call, _ = await gateway.routed(replace(request, messages=messages, response_schema=None))
    return call


def corrected(request: ModelRequest, reason: str | None) -> ModelRequest:
    """Return the request with the reason why its last answer could not be used, if that is why it is sent again."""
    if reason is None or not reason.startswith(INVALID) or not request.messages:
        return request
    *before, last = request.messages
    told = _words().replace("{reason}", reason.removeprefix(INVALID)[:_LONGEST_REASON])
    return replace(request, messages=(*before, Message(last.role, f"{last.content}\n\n{told}", part=last.part)))


def shared_prefix(call: PreparedCall) -> str | None:
    """Return the fingerprint of the longest prefix that calls of other people share and the provider caches."""
    parts = [part for part in call.plan.parts if part.cached and part.name not in PERSONAL_PARTS]
    return parts[-1].fingerprint if parts else None


@lru_cache(maxsize=1)
def _words() -> str:
    return (resources.files("guidance_agent.llm") / "templates" / "json_again.md").read_text(encoding="utf-8").strip()
