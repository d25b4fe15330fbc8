"""The official clients take the simulator for the real thing."""

from __future__ import annotations

import json
from typing import Any

import anthropic
import openai
import pytest

from guidance_agent.provider_simulator import Fault, ProviderSimulatorProcess

QUESTION = "What is the difference between an annuity and drawdown?"
STATUS_CLASSES = [
    (400, "BadRequestError"),
    (401, "AuthenticationError"),
    (403, "PermissionDeniedError"),
    (404, "NotFoundError"),
    (429, "RateLimitError"),
    (500, "InternalServerError"),
    (503, "InternalServerError"),
]


@pytest.fixture
def claude(process: ProviderSimulatorProcess) -> anthropic.Anthropic:
    return anthropic.Anthropic(api_key="key-1", base_url=process.base_url, max_retries=0)


@pytest.fixture
def gpt(process: ProviderSimulatorProcess) -> openai.OpenAI:
    return openai.OpenAI(api_key="key-1", base_url=f"{process.base_url}/v1", max_retries=0)


def test_the_anthropic_client_reads_a_message(claude: anthropic.Anthropic) -> None:
    with claude:
        message = claude.messages.create(
            model="claude-sonnet-5-5", max_tokens=1_000, messages=[{"role": "user", "content": QUESTION}]
        )
    assert message.stop_reason == "end_turn"
    assert message.content[0].type == "text"
    assert "Annuity" in message.content[0].text
    assert message.usage.output_tokens > 200


def test_the_anthropic_client_reads_the_same_message_as_a_stream(claude: anthropic.Anthropic) -> None:
    with claude:
        whole = claude.messages.create(
            model="claude-sonnet-5-5", max_tokens=1_000, messages=[{"role": "user", "content": QUESTION}]
        )
        with claude.messages.stream(
            model="claude-sonnet-5-5", max_tokens=1_000, messages=[{"role": "user", "content": QUESTION}]
        ) as stream:
            pieces = list(stream.text_stream)
            final = stream.get_final_message()
    assert len(pieces) > 20
    assert "".join(pieces) == whole.content[0].text  # type: ignore[union-attr]
    assert final.usage.output_tokens == whole.usage.output_tokens
    assert final.stop_reason == "end_turn"


async def test_the_asynchronous_anthropic_client_reads_both_forms(process: ProviderSimulatorProcess) -> None:
    async with anthropic.AsyncAnthropic(api_key="k", base_url=process.base_url, max_retries=0) as claude:
        whole = await claude.messages.create(
            model="claude-haiku-4-5", max_tokens=1_000, messages=[{"role": "user", "content": QUESTION}]
        )
        async with claude.messages.stream(
            model="claude-haiku-4-5", max_tokens=1_000, messages=[{"role": "user", "content": QUESTION}]
        ) as stream:
            text = await stream.get_final_text()
    assert text == whole.content[0].text  # type: ignore[union-attr]


def test_the_anthropic_client_reads_thinking_and_its_signature_before_the_text(claude: anthropic.Anthropic) -> None:
    with (
        claude,
        claude.messages.stream(
            model="claude-haiku-4-5",
            max_tokens=4_000,
            thinking={"type": "enabled", "budget_tokens": 1_024},
            messages=[{"role": "user", "content": QUESTION}],
        ) as stream,
    ):
        message = stream.get_final_message()
    thinking, text = message.content
    assert thinking.type == "thinking"
    assert thinking.thinking
    assert thinking.signature
    assert text.type == "text"


def test_the_anthropic_client_gets_a_forced_tool_call_with_valid_arguments(claude: anthropic.Anthropic) -> None:
    schema: dict[str, object] = {
        "type": "object",
        "properties": {"amount": {"type": "number", "minimum": 5}, "year": {"enum": ["2026/27"]}},
        "required": ["amount", "year"],
    }
    with (
        claude,
        claude.messages.stream(
            model="claude-sonnet-5-5",
            max_tokens=500,
            tools=[{"name": "tax", "description": "Works out tax", "input_schema": schema}],
            tool_choice={"type": "tool", "name": "tax"},
            messages=[{"role": "user", "content": QUESTION}],
        ) as stream,
    ):
        message = stream.get_final_message()
    assert message.stop_reason == "tool_use"
    call = message.content[-1]
    assert call.type == "tool_use"
    arguments = call.input
    assert isinstance(arguments, dict)
    assert arguments["year"] == "2026/27"
    assert isinstance(arguments["amount"], float | int)
    assert arguments["amount"] >= 5


@pytest.mark.parametrize(("status", "name"), [*STATUS_CLASSES, (529, "InternalServerError")])
def test_anthropic_errors_become_the_clients_own_classes(
    process: ProviderSimulatorProcess, claude: anthropic.Anthropic, status: int, name: str
) -> None:
    process.add_faults(Fault(kind="status", status=status, path="/v1/messages"))
    with claude, pytest.raises(anthropic.APIStatusError) as raised:
        claude.messages.create(
            model="claude-sonnet-5-5", max_tokens=10, messages=[{"role": "user", "content": QUESTION}]
        )
    assert raised.value.status_code == status
    assert isinstance(raised.value, getattr(anthropic, name))


@pytest.mark.parametrize(("status", "name"), STATUS_CLASSES)
def test_openai_errors_become_the_clients_own_classes(
    process: ProviderSimulatorProcess, gpt: openai.OpenAI, status: int, name: str
) -> None:
    process.add_faults(Fault(kind="status", status=status, path="/v1/chat"))
    with gpt, pytest.raises(openai.APIStatusError) as raised:
        gpt.chat.completions.create(model="gpt-6-sol", messages=[{"role": "user", "content": QUESTION}])
    assert raised.value.status_code == status
    assert isinstance(raised.value, getattr(openai, name))


def test_used_up_quota_is_told_apart_from_a_rate_limit(process: ProviderSimulatorProcess, gpt: openai.OpenAI) -> None:
    process.add_faults(Fault(kind="status", status=429, insufficient_quota=True))
    with gpt, pytest.raises(openai.RateLimitError) as raised:
        gpt.chat.completions.create(model="gpt-6-sol", messages=[{"role": "user", "content": QUESTION}])
    assert raised.value.code == "insufficient_quota"


def test_the_anthropic_client_raises_on_an_error_inside_the_stream(
    process: ProviderSimulatorProcess, claude: anthropic.Anthropic
) -> None:
    process.add_faults(Fault(kind="error_event", after_chunks=3))
    with (
        claude,
        pytest.raises(anthropic.APIStatusError, match="Overloaded"),
        claude.messages.stream(
            model="claude-sonnet-5-5", max_tokens=500, messages=[{"role": "user", "content": QUESTION}]
        ) as stream,
    ):
        stream.get_final_message()


def test_the_openai_client_raises_on_an_error_inside_the_stream(
    process: ProviderSimulatorProcess, gpt: openai.OpenAI
) -> None:
    process.add_faults(Fault(kind="error_event", status=500, after_chunks=3))
    with gpt, pytest.raises(openai.APIError, match="server had an error"):
        for _ in gpt.chat.completions.create(
            model="gpt-6-sol", messages=[{"role": "user", "content": QUESTION}], stream=True
        ):
            pass


def test_the_openai_client_reads_the_same_completion_whole_and_streamed(gpt: openai.OpenAI) -> None:
    with gpt:
        whole = gpt.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": QUESTION}])
        stream = gpt.chat.completions.create(
            model="gpt-4o-mini",
            messages=[{"role": "user", "content": QUESTION}],
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].choices == []
    assert chunks[-1].usage == whole.usage
    assert chunks[-2].choices[0].finish_reason == "stop"


async def test_the_asynchronous_openai_client_reads_a_structured_answer(process: ProviderSimulatorProcess) -> None:
    schema: dict[str, object] = {
        "type": "object",
        "properties": {"passed": {"type": "boolean"}, "reasons": {"type": "array", "items": {"type": "string"}}},
        "required": ["passed", "reasons"],
        "additionalProperties": False,
    }
    async with openai.AsyncOpenAI(api_key="k", base_url=f"{process.base_url}/v1", max_retries=0) as gpt:
        completion = await gpt.chat.completions.create(
            model="gpt-6-luna",
            messages=[{"role": "user", "content": QUESTION}],
            response_format={
                "type": "json_schema",
                "json_schema": {"name": "verdict", "schema": schema, "strict": True},
            },
        )
    verdict = json.loads(completion.choices[0].message.content or "")
    assert set(verdict) == {"passed", "reasons"}
    assert isinstance(verdict["passed"], bool)


def test_the_openai_client_gets_a_tool_call_in_pieces(gpt: openai.OpenAI) -> None:
    tools: Any = [
        {
            "type": "function",
            "function": {
                "name": "lookup",
                "parameters": {"type": "object", "properties": {"id": {"const": "TX-05"}}, "required": ["id"]},
            },
        }
    ]
    with gpt:
        stream = gpt.chat.completions.create(
            model="gpt-6-sol",
            messages=[{"role": "user", "content": QUESTION}],
            tools=tools,
            tool_choice="required",
            stream=True,
        )
        calls = [call for chunk in stream for choice in chunk.choices for call in choice.delta.tool_calls or ()]
    assert calls[0].function is not None
    assert calls[0].function.name == "lookup"
    assert json.loads("".join(c.function.arguments or "" for c in calls if c.function)) == {"id": "TX-05"}


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_the_openai_client_reads_embeddings(gpt: openai.OpenAI, encoding: str) -> None:
    with gpt:
        made = gpt.embeddings.create(
            model="text-embedding-3-small",
            input=["taking a lump sum from a pension", "a lump sum out of my pension pot", "the weather in Wales"],
            dimensions=256,
            encoding_format=encoding,  # type: ignore[arg-type]
        )
    vectors = [item.embedding for item in made.data]
    if encoding == "base64":
        # Asked for base64, the client hands it on as it came.
        assert all(isinstance(vector, str) for vector in vectors)
        return
    near = sum(x * y for x, y in zip(vectors[0], vectors[1], strict=True))
    far = sum(x * y for x, y in zip(vectors[0], vectors[2], strict=True))
    assert len(vectors[0]) == 256
    assert near > far + 0.2
    assert made.usage.prompt_tokens == made.usage.total_tokens > 0


def test_both_clients_list_and_look_up_models(claude: anthropic.Anthropic, gpt: openai.OpenAI) -> None:
    with claude, gpt:
        assert "claude-sonnet-5-5" in {model.id for model in claude.models.list()}
        assert "gpt-6-sol" in {model.id for model in gpt.models.list()}
        assert claude.models.retrieve("claude-haiku-5-5").id == "claude-haiku-5-5"
        with pytest.raises(openai.NotFoundError):
            gpt.models.retrieve("gpt-99")


@pytest.mark.parametrize("key", ["invalid", "wrong-key"])
def test_wrong_keys_are_refused_by_both(process: ProviderSimulatorProcess, key: str) -> None:
    with (
        anthropic.Anthropic(api_key=key, base_url=process.base_url, max_retries=0) as claude,
        pytest.raises(anthropic.AuthenticationError, match="invalid x-api-key"),
    ):
        claude.messages.create(model="claude-sonnet-5-5", max_tokens=5, messages=[{"role": "user", "content": "x"}])
    with (
        openai.OpenAI(api_key=key, base_url=f"{process.base_url}/v1", max_retries=0) as gpt,
        pytest.raises(openai.AuthenticationError, match="Incorrect API key"),
    ):
        gpt.chat.completions.create(model="gpt-6-sol", messages=[{"role": "user", "content": "x"}])
