"""Tools, schemas and thinking"""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from guidance_agent.llm.gateway import ModelGateway
from guidance_agent.llm.messages import Message, ToolCall, ToolSpec
from guidance_agent.provider_simulator import Fault, ProviderSimulator, Script
from tests.conformance.expecting import Expect
from tests.conformance.observing import observe, observe_whole
from tests.conformance.serving import Door, Served
from tests.conformance.wires import Said, SaidTool, WireFormat, body_of

FIGURES = ToolSpec("figures", "Looks up figures.", {"type": "object", "properties": {"year": {"type": "string"}}})
SCHEMA = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}},
    "required": ["ok"],
    "additionalProperties": False,
}
ONE = SaidTool(id="call_1", name="figures", arguments=('{"ye', 'ar": "2026', '/27 £ 🏦"', "}"))
TWO = SaidTool(id="call_2", name="figures", arguments=("", '{"year": ""}'))
NONE = SaidTool(id="call_3", name="today", arguments=())
CALLS = {
    "one": ((ONE,), (ToolCall("call_1", "figures", '{"year": "2026/27 £ 🏦"}'),)),
    "two": (
        (ONE, TWO),
        (
            ToolCall("call_1", "figures", '{"year": "2026/27 £ 🏦"}'),
            ToolCall("call_2", "figures", '{"year": ""}'),
        ),
    ),
    "without arguments": ((NONE,), (ToolCall("call_3", "today", "{}"),)),
}


def loaded(calls: tuple[ToolCall, ...]) -> list[tuple[str, str, object]]:
    return [(call.id, call.name, json.loads(call.arguments)) for call in calls]


@pytest.mark.parametrize("text", [(), ("Let me ", "look.")], ids=["alone", "after text"])
@pytest.mark.parametrize(("tools", "calls"), CALLS.values(), ids=CALLS)
async def test_tool_calls_are_joined_from_their_pieces(
    tools: tuple[SaidTool, ...], calls: tuple[ToolCall, ...], text: tuple[str, ...], served: Served, expect: Expect
) -> None:
    events = served.wire.events(Said(text=text, tools=tools))
    seen = await served.streamed(*(event.data for event in events), tools=(FIGURES,))
    expect(seen, text="".join(text), tools=calls, finish="tool_calls", error=None)


@pytest.mark.parametrize(("tools", "calls"), CALLS.values(), ids=CALLS)
async def test_tool_calls_that_are_not_streamed_are_the_same(
    tools: tuple[SaidTool, ...], calls: tuple[ToolCall, ...], served: Served
) -> None:
    said = Said(text=("Let me look.",), tools=tools)
    seen = await served.whole(json.dumps(served.wire.whole(said)).encode(), tools=(FIGURES,))
    assert loaded(seen.tools) == loaded(calls)
    assert (seen.text, seen.finish) == ("Let me look.", "tool_calls")


async def test_tool_calls_of_the_simulator_arrive_in_both_ways(
    gateway: ModelGateway, door: Door, simulator: ProviderSimulator
) -> None:
    script = Script(text="Looking.", tool="figures", arguments={"year": "Zoë 2026"})
    simulator.faults.add(Fault(kind="script", times=2, script=script))
    streamed = await observe(gateway.stream(door.ask(tools=(FIGURES,))))
    whole = await observe_whole(gateway.complete(door.ask(tools=(FIGURES,))))
    for seen in (streamed, whole):
        [call] = seen.tools
        assert (call.name, json.loads(call.arguments)) == ("figures", {"year": "Zoë 2026"})
        assert call.id
        assert (seen.text, seen.finish) == ("Looking.", "tool_calls")


async def test_a_tool_call_and_its_result_go_back_to_the_model(
    gateway: ModelGateway, door: Door, simulator: ProviderSimulator, wire: WireFormat
) -> None:
    messages = (
        Message("user", "Which figures?"),
        Message("assistant", "", tool_calls=(ToolCall("call_1", "figures", '{"year": "2026"}'),)),
        Message("tool", "61 pounds", tool_call_id="call_1"),
    )
    assert (await observe_whole(gateway.complete(door.ask(messages=messages, tools=(FIGURES,))))).text
    body = simulator.requests[-1].body
    sent = json.dumps(body["messages"])
    assert sent.count("call_1") == 2
    assert "61 pounds" in sent
    [tool] = body["tools"]
    assert (tool if wire.name == "anthropic" else tool["function"])["name"] == "figures"


async def test_a_schema_is_sent_and_its_answer_is_json(
    gateway: ModelGateway, door: Door, simulator: ProviderSimulator, wire: WireFormat
) -> None:
    simulator.faults.script('{"ok": true}', times=2)
    streamed = await observe(gateway.stream(door.ask(response_schema=SCHEMA)))
    whole = await observe_whole(gateway.complete(door.ask(response_schema=SCHEMA)))
    assert json.loads(streamed.text) == json.loads(whole.text) == {"ok": True}
    for record in simulator.requests:
        body = record.body
        sent = body["output_config"]["format"] if wire.name == "anthropic" else body["response_format"]["json_schema"]
        assert sent["schema"] == SCHEMA
        assert "tools" not in body


async def test_a_schema_needs_no_header_of_its_own(
    gateway: ModelGateway, door: Door, simulator: ProviderSimulator, expect: Expect
) -> None:
    await observe(gateway.stream(door.ask(response_schema=SCHEMA)))
    expect(SimpleNamespace(beta=simulator.requests[-1].headers.get("anthropic-beta")), beta=None)


THINKING = ("The pot is ", "small. ", "So tax 🏦 matters.")


async def test_thinking_is_never_text(served: Served, expect: Expect) -> None:
    seen = await served.streamed(body_of(served.wire.events(Said(thinking=THINKING, text=("It ", "depends.")))))
    expect(seen, text="It depends.", reasoning="".join(THINKING), finish="stop", error=None)


async def test_thinking_that_is_not_streamed_is_never_text(served: Served, expect: Expect) -> None:
    said = Said(thinking=THINKING, text=("It depends.",))
    seen = await served.whole(json.dumps(served.wire.whole(said), ensure_ascii=False).encode())
    expect(seen, text="It depends.", reasoning="".join(THINKING), finish="stop", error=None)


@pytest.mark.parametrize("cut", [1, 3, 100])
async def test_thinking_between_tags_is_never_text(cut: int, served: Served, expect: Expect) -> None:
    said = "<think>She is <b>vulnerable</b>.</think>\n\nDrawdown means taking money out bit by bit."
    pieces = tuple(said[start : start + cut] for start in range(0, len(said), cut))
    seen = await served.streamed(body_of(served.wire.events(Said(text=pieces))))
    expect(
        seen,
        text="Drawdown means taking money out bit by bit.",
        reasoning="She is <b>vulnerable</b>.",
        finish="stop",
        error=None,
    )


async def test_thinking_between_tags_that_is_not_streamed_is_never_text(served: Served, expect: Expect) -> None:
    said = Said(text=("<think>She is vulnerable.</think>\n\nIt depends.",))
    seen = await served.whole(json.dumps(served.wire.whole(said)).encode())
    expect(seen, text="It depends.", reasoning="She is vulnerable.", finish="stop", error=None)


async def test_thinking_before_a_tool_call_is_kept_apart(served: Served, expect: Expect) -> None:
    seen = await served.streamed(body_of(served.wire.events(Said(thinking=THINKING, tools=(ONE,)))), tools=(FIGURES,))
    expect(seen, text="", reasoning="".join(THINKING), tools=CALLS["one"][1], finish="tool_calls", error=None)
