"""One request of a batch and what became of it, for callers; and the request as a job's records keep it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from pydantic import BaseModel

from guidance_agent.errors import BatchRequestError
from guidance_agent.llm.messages import FinishReason, Message, ModelRequest, ToolCall, ToolSpec, Usage
from guidance_agent.llm.schema_check import schema_fault
from guidance_agent.llm.structured_schema import schema_of
from guidance_agent.llm.tool_runs import ToolRun
from guidance_agent.llm.tools import AnyTool, specs_of

__all__ = [
    "BatchRequest",
    "BatchResult",
    "ItemOutcome",
    "Route",
    "as_message",
    "model_request",
    "request_from_json",
    "request_to_json",
]

ItemOutcome = Literal["succeeded", "invalid", "errored_retryable", "errored_fatal", "expired", "canceled"]
"""What became of an item. `invalid` is an answer that is not what was asked for; all but the first are failures."""

Route = Literal["batch", "online"]

_ROLES = frozenset({"system", "user", "assistant", "tool"})
_LONGEST_ID = 512
_DEFAULT_MAX_TOKENS = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRequest:
    """One request of many.

    Attributes:
        messages: The conversation, as `Message` or as mappings with `role` and `content`; the last one is the user's.
        user_message: Instead of `messages`: one message of the user.
        custom_id: The caller's own id, unique within its job; None numbers the requests.
        model: Name with its provider; None takes the job's.
        system_prompt: Text before all messages; a cacheable part of the prompt.
        tools: What the model may call: functions with types, `Tool`s, or descriptions.
        execute_tools: Whether calls are to be carried out; no provider's batch API does that.
        max_tool_iterations: How many answers may call tools, where they are.
        temperature: None leaves the provider's default.
        max_tokens: Upper bound for the answer; None is 1,024.
        response_schema: A JSON Schema, or a pydantic model, that the answer must satisfy.
        timeout: Seconds for this request where it is made interactively.
        metadata: Ids of the caller, such as the consultation that the item is about; never sent.
    """

    messages: Sequence[Message | Mapping[str, Any]] = ()
    user_message: str | None = None
    custom_id: str | None = None
    model: str | None = None
    system_prompt: str | None = None
    tools: Sequence[AnyTool] = ()
    execute_tools: bool = True
    max_tool_iterations: int | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    response_schema: Mapping[str, Any] | type[BaseModel] | None = None
    timeout: float | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def id(self) -> str | None:
        return self.custom_id


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchResult:
    """What became of a request.

    Attributes:
        custom_id: The caller's id.
        success: Whether there is an answer, and it is what was asked for.
        outcome: What became of it, in one word.
        response: The answer's text; None where there is none.
        parsed: The answer as the pydantic model of its kind; where only a schema was given, the JSON object that
            satisfies it.
        tool_calls_made: What the model asked to be called.
        tool_execution_history: The calls that were carried out; a provider's batch API carries nothing out.
        usage: Tokens of the last attempt; in a concurrent batch, of all its calls.
        cost: US dollars for all attempts, as far as they are known; None where the model has no price.
        interactive_cost: What the same tokens would have cost outside a batch.
        error: What went wrong, and what to do.
        error_type: The class of the error, or the provider's word for it.
        attempts: In how many batches it was sent; in a concurrent batch, how often it was tried.
        elapsed: Seconds from the submission of its last batch to the result; in a concurrent batch, of all attempts.
        metadata: As in the request.
        route: Whether the answer came from a batch, or online after the deadline.
        simulated: Whether the simulator answered.
        finish_reason: Why the answer ended, where that is known: `length` is one that was cut off.
        repaired: What was repaired in an answer of a schema before it could be read; nothing in a provider's batch.
    """

    custom_id: str
    success: bool
    outcome: ItemOutcome
    response: str | None = None
    parsed: Any = None
    tool_calls_made: tuple[ToolCall, ...] = ()
    tool_execution_history: tuple[ToolRun, ...] = ()
    usage: Usage | None = None
    cost: float | None = None
    interactive_cost: float | None = None
    error: str | None = None
    error_type: str | None = None
    attempts: int = 1
    elapsed: float | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    route: Route = "batch"
    simulated: bool = False
    finish_reason: FinishReason | None = None
    repaired: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        return self.custom_id

    @property
    def retried(self) -> bool:
        return self.attempts > 1


def model_request(
    request: BatchRequest, custom_id: str, *, model: str | None, operation: str, runs_tools: bool = False
) -> ModelRequest:
    """Return the call of a model that a request of a batch is.

    Args:
        request: The request.
        custom_id: Its id, for messages.
        model: The job's model, for a request that names none.
        operation: What the calls of the job are for.
        runs_tools: Whether whoever asks carries out the calls of tools.

    Raises:
        BatchRequestError: the request cannot go into a batch as it is.
    """
    if request.tools and request.execute_tools and not runs_tools:
        raise BatchRequestError(
            f"The request {custom_id!r} asks for its tools to be carried out, which no batch API does. Pass "
            "execute_tools=False to be told which calls the model wants, or use a concurrent batch."
        )
    if not custom_id or len(custom_id) > _LONGEST_ID:
        raise BatchRequestError(
            f"The id {custom_id[:80]!r} has {len(custom_id)} characters; give it 1 to {_LONGEST_ID}."
        )
    name = request.model or model
    if name is None:
        raise BatchRequestError(f"The request {custom_id!r} names no model. Name one in it, or for the whole job.")
    if (request.user_message is None) == (not request.messages):
        raise BatchRequestError(f"The request {custom_id!r} needs either messages or user_message, and not both.")
    messages = [as_message(message, f"request {custom_id!r}") for message in request.messages]
    if request.user_message is not None:
        messages = [Message("user", request.user_message)]
    if request.system_prompt is not None:
        messages.insert(0, Message("system", request.system_prompt, part="instructions"))
    schema = request.response_schema
    if isinstance(schema, Mapping) and (fault := schema_fault(schema)) is not None:
        raise BatchRequestError(f"The schema of the request {custom_id!r} is none: it {fault}. Correct it.")
    return ModelRequest(
        model=name,
        messages=tuple(messages),
        max_tokens=_DEFAULT_MAX_TOKENS if request.max_tokens is None else request.max_tokens,
        temperature=request.temperature,
        operation=operation,
        tools=specs_of(request.tools),
        response_schema=None if schema is None else schema_of(schema),
        metadata={},
    )


def as_message(message: Message | Mapping[str, Any], where: str) -> Message:
    """Return a message that may be written as a mapping; `where` it stands is for the error.

    Raises:
        BatchRequestError: it has no role, or no text.
    """
    if isinstance(message, Message):
        return message
    role, content = message.get("role"), message.get("content")
    if role not in _ROLES or not isinstance(content, str):
        raise BatchRequestError(
            f"The {where} has a message that is none: {dict(message)!r:.200}. Give it a role and a text."
        )
    return Message(role, content, part=message.get("part"), tool_call_id=message.get("tool_call_id"))


def request_to_json(request: ModelRequest) -> dict[str, Any]:
    """Return the request as JSON that says everything that is sent."""
    made: dict[str, Any] = {
        "model": request.model,
        "messages": [_message_json(message) for message in request.messages],
        "max_tokens": request.max_tokens,
        "operation": request.operation,
    }
    if request.temperature is not None:
        made["temperature"] = request.temperature
    if request.tools:
        made["tools"] = [asdict(tool) for tool in request.tools]
    if request.response_schema is not None:
        made["response_schema"] = dict(request.response_schema)
    if request.cache_key is not None:
        made["cache_key"] = request.cache_key
    return made


def _message_json(message: Message) -> dict[str, Any]:
    made: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.part is not None:
        made["part"] = message.part
    if message.tool_calls:
        made["tool_calls"] = [asdict(call) for call in message.tool_calls]
    if message.tool_call_id is not None:
        made["tool_call_id"] = message.tool_call_id
    return made


def request_from_json(made: Mapping[str, Any]) -> ModelRequest:
    """Return the request that `request_to_json` wrote."""
    return ModelRequest(
        model=made["model"],
        messages=tuple(
            Message(
                message["role"],
                message["content"],
                part=message.get("part"),
                tool_calls=tuple(ToolCall(**call) for call in message.get("tool_calls", ())),
                tool_call_id=message.get("tool_call_id"),
            )
            for message in made["messages"]
        ),
        max_tokens=made["max_tokens"],
        temperature=made.get("temperature"),
        operation=made["operation"],
        tools=tuple(ToolSpec(**tool) for tool in made.get("tools", ())),
        response_schema=made.get("response_schema"),
        cache_key=made.get("cache_key"),
    )
