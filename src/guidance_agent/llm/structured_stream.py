"""A typed answer while it is being written: what is there of it so far, and at the end the whole of it, read strictly.

A part of an answer is a snapshot: fields may be missing, and a text may go on. Nothing of it was checked. Where an
answer cannot be read in the end and is asked for again, the snapshots begin anew with the next attempt.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

import pydantic_core

from guidance_agent.errors import StructuredOutputError
from guidance_agent.llm.messages import Completion, ModelRequest
from guidance_agent.llm.structured import StructuredCompletion, read_as, typed_request
from guidance_agent.llm.structured_retry import next_request
from guidance_agent.llm.structured_schema import Schema

if TYPE_CHECKING:
    from guidance_agent.llm.gateway import ModelGateway

__all__ = ["PartialAnswer", "TypedStream"]

Value = TypeVar("Value")

_GROWTH = 1.05


@dataclass(frozen=True, slots=True, kw_only=True)
class PartialAnswer:
    """What is there of an answer: the object so far, and in which attempt."""

    value: dict[str, Any]
    attempt: int


class TypedStream(Generic[Value]):
    """Yields what is there of a typed answer; `result` is the whole, once it was read to its end.

    Args:
        gateway: The way to the model.
        request: The request; its `response_schema` is replaced by that of `output`.
        output: The pydantic model that the answer must be, or a JSON Schema of an object.
        attempts: How often an answer that cannot be read is asked for.
        repair: Whether what is safe to repair is repaired.
    """

    def __init__(
        self, gateway: ModelGateway, request: ModelRequest, *, output: Schema, attempts: int = 3, repair: bool = True
    ) -> None:
        self._gateway = gateway
        self._request = request
        self._output = output
        self._attempts = attempts
        self._repair = repair
        self._result: StructuredCompletion[Any] | None = None
        self._parts = self._run()

    @property
    def result(self) -> StructuredCompletion[Any]:
        """The whole answer.

        Raises:
            RuntimeError: the stream was not read to its end.
        """
        if self._result is None:
            raise RuntimeError("The typed answer is not there yet. Read the stream to its end first.")
        return self._result

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> PartialAnswer:
        """Return the next snapshot.

        Raises:
            StructuredOutputError: no attempt gave an answer that can be read.
            ModelError: the call failed.
        """
        return await anext(self._parts)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the provider's answer."""
        await self._parts.aclose()

    async def _run(self) -> AsyncGenerator[PartialAnswer, None]:
        first = asked = await typed_request(self._gateway, self._request, self._output)
        attempt = 0
        spent: float | None = 0.0
        while True:
            attempt += 1
            texts: list[str] = []
            length, due = 0, 1.0
            async with self._gateway.stream(asked) as stream:
                async for delta in stream:
                    if not delta.text:
                        continue
                    texts.append(delta.text)
                    length += len(delta.text)
                    # Reading all of it again for every piece would take quadratic time.
                    if length >= due and (value := _so_far("".join(texts))) is not None:
                        due = length * _GROWTH
                        yield PartialAnswer(value=value, attempt=attempt)
            completion = _whole(stream.call, "".join(texts))
            try:
                value, repairs = read_as(completion, self._output, repair=self._repair)
            except StructuredOutputError as error:
                spent = None if spent is None or error.cost_usd is None else spent + error.cost_usd
                error.cost_usd, error.attempts = spent, attempt
                following = next_request(
                    first, first.messages, error, text=completion.text, attempt=attempt, limit=asked.max_tokens
                )
                if attempt >= self._attempts or following is None:
                    raise
                asked = following
            else:
                self._result = StructuredCompletion(
                    value=value, completion=completion, attempts=attempt, repairs=repairs
                )
                return


def _so_far(text: str) -> dict[str, Any] | None:
    try:
        value = pydantic_core.from_json(text, allow_partial="trailing-strings")
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _whole(call: Any, text: str) -> Completion:
    if call is None:
        raise RuntimeError("a stream that was read to its end has a record")
    return Completion(text=text, finish_reason=call.finish_reason or "other", call=call)
