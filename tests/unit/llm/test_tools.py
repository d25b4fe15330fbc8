"""Functions as tools: what their signatures say, what is refused, and what a call of one may do."""

from __future__ import annotations

import asyncio
import datetime
import enum
import json
import socket
import sys
import threading
from collections.abc import Callable
from decimal import Decimal
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field

from guidance_agent.errors import ToolDefinitionError
from guidance_agent.llm.messages import ToolCall, ToolSpec
from guidance_agent.llm.tool_runs import ToolOptions, ToolRun, run_call, run_calls
from guidance_agent.llm.tools import AnyTool, runnable, specs_of, tool


class Pot(BaseModel):
    provider: str
    value: Decimal


class Country(enum.Enum):
    ENGLAND = "england"
    SCOTLAND = "scotland"


def lump_sum_tax(amount: Decimal, tax_year: str = "2026/27", *, country: Country = Country.ENGLAND) -> str:
    """Return the income tax on a lump sum.

    Nothing else of the year counts.

    Args:
        amount: In pounds,
            before tax.
        tax_year: Such as 2026/27.

    Returns:
        Pounds.
    """
    return f"{amount} {tax_year} {country.name}"


async def run(function: AnyTool, arguments: str, options: ToolOptions | None = None) -> ToolRun:
    tools = runnable([function])
    return await run_call(tools, ToolCall("c1", next(iter(tools)), arguments), options or ToolOptions(), number=1)


def test_the_schema_comes_from_the_signature_and_the_words_from_the_docstring() -> None:
    spec = tool(lump_sum_tax).spec
    assert (spec.name, spec.description) == (
        "lump_sum_tax",
        "Return the income tax on a lump sum.\n\nNothing else of the year counts.",
    )
    properties = spec.parameters["properties"]
    assert list(properties) == ["amount", "tax_year", "country"]
    assert properties["amount"]["description"] == "In pounds, before tax."
    assert properties["tax_year"] == {"default": "2026/27", "description": "Such as 2026/27.", "type": "string"}
    assert spec.parameters["required"] == ["amount"]
    assert spec.parameters["additionalProperties"] is False
    assert "title" not in json.dumps(spec.parameters)


def test_a_tool_without_parameters_takes_an_empty_object() -> None:
    def today() -> str:
        return "today"

    assert tool(today).spec.parameters == {"additionalProperties": False, "properties": {}, "type": "object"}


def test_a_decorator_gives_a_tool_its_own_name_words_and_time() -> None:
    @tool(name="tax", description="Tax.", timeout=3)
    def compute(amount: int) -> int:
        return amount

    assert (compute.name, compute.spec.description, compute.timeout) == ("tax", "Tax.", 3)


async def test_parameters_may_be_called_as_pydantic_s_own_names_are() -> None:
    def odd(schema: str, model_config: int, copy: bool) -> str:
        return f"{schema} {model_config} {copy}"

    assert (await run(odd, '{"schema": "a", "model_config": 1, "copy": true}')).result == "a 1 True"


async def test_values_arrive_in_the_types_of_the_signature() -> None:
    def typed(
        pots: list[Pot],
        born: datetime.date,
        kind: Literal["dc", "db"],
        share: Annotated[float, Field(ge=0, le=1)],
        name: str | None = None,
    ) -> str:
        return f"{pots[0].value + 1} {born.year} {kind} {share!r} {name}"

    pots = '[{"provider": "A", "value": 12345678901234567.891}]'
    asked = f'{{"pots": {pots}, "born": "1970-02-01", "kind": "dc", "share": 0.5}}'
    assert (await run(typed, asked)).result == "12345678901234568.891 1970 dc 0.5 None"


async def test_results_that_are_no_text_become_json_with_exact_decimals() -> None:
    def pot() -> Pot:
        return Pot(provider="Ä", value=Decimal("0.10"))

    assert (await run(pot, "")).result == '{"provider":"Ä","value":"0.10"}'


def untyped(amount) -> str:  # type: ignore[no-untyped-def]
    return str(amount)


def of_sockets(where: socket.socket) -> str:
    return str(where)


def of_functions(what: Callable[[int], int]) -> str:
    return str(what)


def of_any_number(*amounts: int) -> str:
    return str(amounts)


def of_any_names(**amounts: int) -> str:
    return str(amounts)


def by_place(amount: int, /) -> str:
    return str(amount)


def of_nowhere(amount: Missing) -> str:  # type: ignore[name-defined]  # noqa: F821
    return str(amount)


@pytest.mark.parametrize(
    ("function", "named"),
    [
        (untyped, "'amount'.*has no type"),
        (of_sockets, "of_sockets"),
        (of_functions, "of_functions"),
        (of_any_number, r"\*amounts"),
        (of_any_names, r"\*\*amounts"),
        (by_place, "amount"),
        (of_nowhere, "Missing"),
        (lambda: "x", "<lambda>"),
        ("tax", "'tax' cannot be a tool"),
    ],
)
def test_what_a_model_could_not_call_is_refused_when_it_is_defined(function: Any, named: str) -> None:
    with pytest.raises(ToolDefinitionError, match=named):
        tool(function)


def test_two_tools_of_one_name_are_refused() -> None:
    with pytest.raises(ToolDefinitionError, match="lump_sum_tax"):
        specs_of([lump_sum_tax, ToolSpec("lump_sum_tax", "", {})])


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("{", "no JSON object"),
        ("[1]", "arguments: "),
        ("{}", "amount: Field required"),
        ('{"amount": "lots"}', "amount: "),
        ('{"amount": 1, "rate": 2}', "rate: Extra inputs"),
        ('{"amount": 1, "country": "mars"}', "country: "),
    ],
)
async def test_wrong_arguments_are_told_to_the_model(arguments: str, told: str) -> None:
    done = await run(lump_sum_tax, arguments)
    assert told in done.result
    assert done.error in ("JSONDecodeError", "ValidationError")


async def test_an_unknown_tool_is_told_with_those_that_there_are() -> None:
    done = await run_call(runnable([lump_sum_tax]), ToolCall("c1", "tax", "{}"), ToolOptions(), number=1)
    assert done.result == "There is no tool 'tax'. There are: lump_sum_tax."


async def test_what_a_tool_raises_is_told_and_nothing_of_it_ends_the_program() -> None:
    def fails() -> str:
        raise ValueError("the tax year 2019/20 is not known")

    def leaves() -> str:
        sys.exit("gone")

    assert (await run(fails, "{}")).result == "The tool failed (ValueError: the tax year 2019/20 is not known)"
    assert (await run(leaves, "{}")).result == "The tool failed (SystemExit)"


async def test_a_tool_that_hangs_keeps_nobody_waiting() -> None:
    let_go = threading.Event()

    def hangs() -> str:
        let_go.wait(20)
        return "late"

    async def hangs_too() -> str:
        await asyncio.sleep(20)
        return "late"

    try:
        for function in (hangs, hangs_too):
            done = await run(function, "{}", ToolOptions(timeout=0.02))
            assert (done.error, done.result) == ("TimeoutError", "The tool did not answer within 0.02 s.")
            assert done.elapsed < 5
    finally:
        let_go.set()


async def test_a_result_of_ten_megabytes_is_cut_and_says_so() -> None:
    def long() -> str:
        return "x" * 10_485_760

    done = await run(long, "{}")
    assert done.cut
    assert done.result == "x" * 65_536 + "\n[cut: 65536 of 10485760 characters]"


async def test_something_that_is_no_json_is_told() -> None:
    def strange() -> object:
        return object()

    assert "cannot be written as JSON" in (await run(strange, "{}")).result


async def test_calls_of_one_answer_run_together_and_keep_their_order() -> None:
    arrived: list[str] = []
    all_there = asyncio.Event()

    async def meet(name: str) -> str:
        arrived.append(name)
        if len(arrived) == 3:
            all_there.set()
        await all_there.wait()
        return name

    calls = tuple(ToolCall(name, "meet", json.dumps({"name": name})) for name in "abc")
    done = await run_calls(runnable([meet]), calls, ToolOptions(timeout=5), number=2)
    assert [(each.result, each.round) for each in done] == [("a", 2), ("b", 2), ("c", 2)]


async def test_no_more_calls_run_at_once_than_may() -> None:
    running = most = 0

    async def count() -> str:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        return "done"

    calls = tuple(ToolCall(str(number), "count", "") for number in range(9))
    await run_calls(runnable([count]), calls, ToolOptions(at_once=2), number=1)
    assert most == 2


def test_nothing_of_what_a_model_writes_is_evaluated(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("a model's text was evaluated")

    made = tool(lump_sum_tax)
    monkeypatch.setattr("builtins.eval", forbidden)
    monkeypatch.setattr("builtins.exec", forbidden)
    assert made.arguments('{"amount": 1, "tax_year": "__import__(\'os\').getpid()"}')["tax_year"].startswith(
        "__import__"
    )
