"""Python functions as tools: the schema from their signature, the description from their docstring.

    def lump_sum_tax(amount: Decimal, tax_year: str) -> Decimal:
        '''Return the income tax on a lump sum.

        Args:
            amount: In pounds.
            tax_year: Such as 2026/27.
        '''

    figures = tool(lump_sum_tax)

Every parameter has a type that JSON can say, else the definition fails, long before a model calls it. What a model
sends is checked against the types; numbers reach a `Decimal` digit for digit. Nothing a model writes is ever run.
`llm/tool_runs.py` carries calls out, `llm/tool_loop.py` asks a model until it calls no more.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, TypeAlias, get_type_hints, overload

from pydantic import BaseModel, ConfigDict, Field, create_model
from pydantic.errors import PydanticUndefinedAnnotation, PydanticUserError

from guidance_agent.errors import ToolDefinitionError
from guidance_agent.llm.messages import ToolSpec

__all__ = ["AnyTool", "Tool", "runnable", "specs_of", "tool"]

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_SECTION = re.compile(r"^(Args|Arguments|Returns|Yields|Raises|Attributes|Example|Examples|Note|Source|Sources):\s*$")
_ARGUMENT = re.compile(r"^(\w+)(?:\s*\([^)]*\))?:\s*(.*)$")
_UNSUPPORTED = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD, inspect.Parameter.POSITIONAL_ONLY)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A function that a model may call.

    Attributes:
        spec: What the model is told.
        function: What is run; a function that is not async runs in a thread.
        timeout: Seconds that one call may take; None takes the loop's.
    """

    spec: ToolSpec
    function: Callable[..., Any]
    timeout: float | None = None
    _model: type[BaseModel]
    _names: Mapping[str, str]

    @property
    def name(self) -> str:
        return self.spec.name

    def arguments(self, text: str) -> dict[str, Any]:
        """Return the arguments that a model wrote, as the function takes them.

        Raises:
            ValueError: they are no JSON object (`json.JSONDecodeError`), or not of the types (`ValidationError`).
        """
        # Read as Decimal, because on the way through a float digits would be lost.
        value = json.loads(text or "{}", parse_float=Decimal)
        made = self._model.model_validate(value)
        return {name: getattr(made, field) for field, name in self._names.items()}


AnyTool: TypeAlias = "Tool | ToolSpec | Callable[..., Any]"
"""A tool, a function that becomes one, or a description of a tool that is not run here."""


@overload
def tool(function: Callable[..., Any], /) -> Tool: ...


@overload
def tool(
    *, name: str | None = None, description: str | None = None, timeout: float | None = None
) -> Callable[[Callable[..., Any]], Tool]: ...


def tool(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    timeout: float | None = None,
) -> Tool | Callable[[Callable[..., Any]], Tool]:
    """Return `function` as a tool; also a decorator, with or without arguments.

    Args:
        function: Any function or bound method whose parameters all have types.
        name: What the model calls it; None is the function's name.
        description: What the model is told; None is the docstring up to its first section.
        timeout: Seconds that one call may take; None takes the loop's.

    Raises:
        ToolDefinitionError: it cannot be a tool.
    """
    if function is None:
        return lambda given: _tool(given, name, description, timeout)
    return _tool(function, name, description, timeout)


def specs_of(tools: Sequence[AnyTool]) -> tuple[ToolSpec, ...]:
    """Return what a model is told of the tools.

    Raises:
        ToolDefinitionError: one of them cannot be a tool, or two have one name.
    """
    specs = tuple(each if isinstance(each, ToolSpec) else _as_tool(each).spec for each in tools)
    names = [spec.name for spec in specs]
    for twice in {name for name in names if names.count(name) > 1}:
        raise ToolDefinitionError(f"Two tools are called {twice!r}. Give one of them another name.")
    return specs


def runnable(tools: Sequence[AnyTool]) -> dict[str, Tool]:
    """Return by name what can be run here: all tools but mere descriptions.

    Raises:
        ToolDefinitionError: one of them cannot be a tool.
    """
    made = [_as_tool(each) for each in tools if not isinstance(each, ToolSpec)]
    return {each.name: each for each in made}


def _as_tool(given: Tool | Callable[..., Any]) -> Tool:
    return given if isinstance(given, Tool) else _tool(given, None, None, None)


def _tool(function: Callable[..., Any], name: str | None, description: str | None, timeout: float | None) -> Tool:
    called = name or str(getattr(function, "__name__", ""))
    if not callable(function) or not _NAME.fullmatch(called):
        raise ToolDefinitionError(
            f"{function!r:.200} cannot be a tool under the name {called!r}. Pass a function, and a name of 1 to 64 "
            "letters, digits, '_' and '-'."
        )
    words, told = _documentation(function)
    fields: dict[str, Any] = {}
    names: dict[str, str] = {}
    for number, (parameter, hint) in enumerate(_parameters(function, called)):
        default = ... if parameter.default is inspect.Parameter.empty else parameter.default
        extra: dict[str, Any] = {"description": told[parameter.name]} if parameter.name in told else {}
        # Names of their own: a parameter may be called like something that every pydantic model has.
        fields[f"argument_{number}"] = (hint, Field(default, alias=parameter.name, **extra))
        names[f"argument_{number}"] = parameter.name
    try:
        model = create_model(called, __config__=ConfigDict(extra="forbid"), **fields)
        schema = _untitled(model.model_json_schema())
    except (PydanticUserError, PydanticUndefinedAnnotation, TypeError, ValueError) as error:
        raise ToolDefinitionError(
            f"The tool {called!r} has a parameter whose type JSON cannot say: {_first_line(error)}. Use numbers, "
            "texts, dates, lists, enums or pydantic models."
        ) from error
    schema.pop("description", None)
    schema.setdefault("properties", {})
    spec = ToolSpec(called, description if description is not None else words, schema)
    return Tool(spec=spec, function=function, timeout=timeout, _model=model, _names=names)


def _parameters(function: Callable[..., Any], called: str) -> list[tuple[inspect.Parameter, Any]]:
    try:
        signature = inspect.signature(function)
        hints = get_type_hints(
            function if inspect.isroutine(function) else type(function).__call__, include_extras=True
        )
    except (NameError, TypeError, ValueError, AttributeError) as error:
        raise ToolDefinitionError(
            f"The types of the tool {called!r} cannot be read: {_first_line(error)}. Write types that exist where the "
            "function is defined."
        ) from error
    made = []
    for parameter in signature.parameters.values():
        if parameter.kind in _UNSUPPORTED:
            raise ToolDefinitionError(
                f"The tool {called!r} takes {str(parameter)!r}, which a model cannot pass by name. Name each parameter."
            )
        if parameter.name not in hints:
            raise ToolDefinitionError(
                f"The parameter {parameter.name!r} of the tool {called!r} has no type. Write one, such as "
                f"'{parameter.name}: int'."
            )
        made.append((parameter, hints[parameter.name]))
    return made


def _documentation(function: Callable[..., Any]) -> tuple[str, dict[str, str]]:
    """Return the docstring up to its first section, and what it says of each argument."""
    lines = (inspect.getdoc(function) or "").splitlines()
    first = next((number for number, line in enumerate(lines) if _SECTION.match(line)), len(lines))
    told: dict[str, str] = {}
    section, current = "", ""
    for line in lines[first:]:
        if found := _SECTION.match(line):
            section = found[1]
        elif section in ("Args", "Arguments") and line.strip():
            begun = _ARGUMENT.match(line.strip()) if not line.startswith(" " * 8) else None
            if begun:
                current = begun[1]
                told[current] = begun[2]
            elif current:
                told[current] = f"{told[current]} {line.strip()}".strip()
    return "\n".join(lines[:first]).strip(), told


def _untitled(schema: Any, *, named: bool = False) -> Any:
    """Return the schema without the titles that only repeat names; `named` says that its keys are names."""
    if isinstance(schema, Mapping):
        return {
            key: _untitled(value, named=not named and key in ("properties", "$defs"))
            for key, value in schema.items()
            if named or key != "title"
        }
    return [_untitled(each) for each in schema] if isinstance(schema, list) else schema


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
