"""The four-part prompt, byte-stable by construction.

Part 1 is conduct and role, Part 2 the requirements with the released rules, Part 3 the customer as they stood when the
consultation opened: three system messages, rendered from frozen inputs without clock, chance or unordered collections.
Part 4 is the conversation as real messages and one last message that holds everything that varies with the turn.
Nothing that varies may stand before Part 4, or no provider could read the prefix from its cache.

Every value that comes from a person or a store passes the `data` filter: angle brackets become typographic ones, so
that no text can close the block it stands in.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from guidance_agent.advisor.conversation import Conversation, EmotionalTone, Entry, Phase, read_conversation
from guidance_agent.core.templates import templates_of
from guidance_agent.core.types import AdvisorProfile, CustomerProfile, HistoryEntry, JsonObject
from guidance_agent.llm.messages import Message

if TYPE_CHECKING:
    from jinja2 import Environment

    from guidance_agent.compliance.verdict import CheckResult

__all__ = [
    "PARTS",
    "CalculationLine",
    "FactLine",
    "FigureLine",
    "MemoryLine",
    "ReleasedRule",
    "ReleasedRules",
    "TurnContext",
    "build_calculation_prompt",
    "build_guidance_prompt",
    "build_guidance_prompt_cached",
    "build_reasoning_prompt",
    "build_refinement_prompt",
    "importance_prompt",
    "stable_parts",
]

PARTS = ("conduct", "requirements", "customer", "conversation")
"""Names of the parts that a cache breakpoint may end, in their order."""

_NOTHING_SAID = "…"
"""Stands for an answer that was cut off after blank characters only: providers refuse messages without text."""


@dataclass(frozen=True, slots=True)
class ReleasedRule:
    """A learned rule that has passed its release."""

    id: str
    text: str


@dataclass(frozen=True, slots=True)
class ReleasedRules:
    """One release of the learned rules; version 0 is the empty one."""

    version: int = 0
    rules: tuple[ReleasedRule, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FactLine:
    """A fact as the prompt shows it; dates in ISO form."""

    id: str
    statement: str
    source: str | None
    status: str
    effective_from: str
    valid_until: str | None


@dataclass(frozen=True, slots=True)
class FigureLine:
    """A figure as the prompt shows it, with its unit and tax year in `text`."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class MemoryLine:
    """Something remembered of this customer, and when it was said (ISO date)."""

    text: str
    when: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CalculationLine:
    """A sum that was worked out for this turn: the calculator, what it was given and what it returned, as JSON."""

    name: str
    arguments: str
    result: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnContext:
    """Everything that varies with the turn, besides the conversation and the question."""

    today: str
    tax_year: str
    facts: tuple[FactLine, ...] = ()
    figures: tuple[FigureLine, ...] = ()
    unknowns: tuple[str, ...] = ()
    cases: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    memories: tuple[MemoryLine, ...] = ()
    profile_changes: tuple[str, ...] = ()
    phase: Phase | None = None
    tone: EmotionalTone | None = None
    reasoning: str | None = None
    calculations: tuple[CalculationLine, ...] = ()


def stable_parts(
    advisor: AdvisorProfile, customer: JsonObject, rules: ReleasedRules | None = None
) -> tuple[Message, Message, Message]:
    """Return Parts 1 to 3. `customer` is `CustomerProfile.prompt_values()` as stored with the consultation."""
    first, second = _service_parts(advisor.name, advisor.service_name, advisor.house_rules, rules or ReleasedRules())
    return (
        Message("system", first, part="conduct"),
        Message("system", second, part="requirements"),
        Message("system", _customer_part(json.dumps(customer, sort_keys=True)), part="customer"),
    )


def build_guidance_prompt(
    advisor: AdvisorProfile,
    customer: JsonObject,
    conversation: Conversation,
    context: TurnContext,
    rules: ReleasedRules | None = None,
) -> tuple[Message, ...]:
    """Return the whole prompt of one answer."""
    last = _render(
        "question.md.j2",
        turn_context=_context_text(_as_found(context)),
        reasoning=context.reasoning,
        calculations=context.calculations,
        question=conversation.question,
    )
    return (*stable_parts(advisor, customer, rules), *_history(conversation.history), Message("user", last))


def build_reasoning_prompt(
    advisor: AdvisorProfile,
    customer: JsonObject,
    conversation: Conversation,
    context: TurnContext,
    rules: ReleasedRules | None = None,
) -> tuple[Message, ...]:
    """Return the prompt of the private notes: the same parts and context, another last instruction."""
    return _build_prompt("reasoning_question.md.j2", advisor, customer, conversation, context, rules)


def build_calculation_prompt(
    advisor: AdvisorProfile,
    customer: JsonObject,
    conversation: Conversation,
    context: TurnContext,
    rules: ReleasedRules | None = None,
) -> tuple[Message, ...]:
    """Return the prompt that asks which sums to work out: the same parts and context, another last instruction."""
    return _build_prompt("calculation_question.md.j2", advisor, customer, conversation, context, rules)


def _build_prompt(
    template: str,
    advisor: AdvisorProfile,
    customer: JsonObject,
    conversation: Conversation,
    context: TurnContext,
    rules: ReleasedRules | None,
) -> tuple[Message, ...]:
    last = _render(template, turn_context=_context_text(_as_found(context)), question=conversation.question)
    return (*stable_parts(advisor, customer, rules), *_history(conversation.history), Message("user", last))


def build_refinement_prompt(
    first: Sequence[Message], text: str, *, failures: Sequence[CheckResult], doubts: str
) -> tuple[Message, ...]:
    """Return the prompt of an answer's next version: that of the first, with the last version and its verdict after it.

    All but the last message is the same to the byte, so that it is read from the provider's cache.

    Args:
        first: The prompt of the first version.
        text: The last version.
        failures: The checks that it failed; none where it passed, or could not be judged.
        doubts: Why the judge was not sure of a version that passed.
    """
    last = _render("refinement.md.j2", last_message=first[-1].content, text=text, failures=failures, doubts=doubts)
    return (*first[:-1], Message("user", last))


def importance_prompt(observation: str) -> tuple[Message, ...]:
    """Return the prompt that rates how much an observation matters later, from 1 to 10."""
    return (
        Message("system", _render("importance.md"), part="importance"),
        Message("user", _render("importance_observation.md.j2", observation=observation)),
    )


def build_guidance_prompt_cached(
    advisor: AdvisorProfile,
    customer: CustomerProfile,
    context: TurnContext,
    conversation: Sequence[HistoryEntry] | None = None,
    *,
    rules: ReleasedRules | None = None,
) -> list[dict[str, Any]]:
    """Return the prompt in LiteLLM's message form, with `cache_control` at the ends of the stable parts.

    Without a conversation these are four messages: three of the system and the customer's. Its turns stand between
    Part 3 and the last message.

    Raises:
        HistoryError, NoQuestionError: as `read_conversation`.
    """
    read = read_conversation(customer, conversation)
    messages = build_guidance_prompt(advisor, customer.prompt_values(), read, context, rules)
    return [_litellm_form(message) for message in messages]


def _litellm_form(message: Message) -> dict[str, Any]:
    if message.part is None:
        return {"role": message.role, "content": message.content}
    ttl = "5m" if message.part == "conversation" else "1h"
    block = {"type": "text", "text": message.content, "cache_control": {"type": "ephemeral", "ttl": ttl}}
    return {"role": message.role, "content": [block]}


def _history(entries: Sequence[Entry]) -> tuple[Message, ...]:
    last = len(entries) - 1
    return tuple(
        Message(
            "user" if entry.role == "customer" else "assistant",
            entry.content if entry.content.strip() else _NOTHING_SAID,
            part="conversation" if index == last else None,
        )
        for index, entry in enumerate(entries)
    )


# The prompts of one turn, and of the next ones of its consultation, share what is rendered here.


@functools.lru_cache(maxsize=256)
def _customer_part(canonical: str) -> str:
    return _render("customer.md.j2", customer=json.loads(canonical))


def _as_found(context: TurnContext) -> TurnContext:
    """The context before notes and sums, which is rendered once for all prompts of a turn."""
    return replace(context, reasoning=None, calculations=()) if context.reasoning or context.calculations else context


@functools.lru_cache(maxsize=64)
def _context_text(context: TurnContext) -> str:
    return _render("turn_context.md.j2", **{name: getattr(context, name) for name in TurnContext.__slots__})


@functools.lru_cache(maxsize=16)
def _service_parts(name: str, service_name: str, house_rules: tuple[str, ...], rules: ReleasedRules) -> tuple[str, str]:
    own_rules = tuple(ReleasedRule(f"HOUSE-{number}", text) for number, text in enumerate(house_rules, start=1))
    first = _render("conduct.md") + f"\nYour name is {_data(name)}. You speak for: {_data(service_name)}.\n"
    second = _render("requirements.md", rules=rules.rules, rules_version=rules.version, house_rules=own_rules)
    return first, second


def _render(template: str, **values: Any) -> str:
    return _environment().get_template(template).render(**values).strip() + "\n"


@functools.cache
def _environment() -> Environment:
    environment = templates_of("guidance_agent.advisor")
    environment.filters["data"] = _data
    return environment


def _data(value: object, *, lines: bool = False) -> str:
    text = str(value).replace("<", "‹").replace(">", "›")
    return text.strip() if lines else " ".join(text.split())
