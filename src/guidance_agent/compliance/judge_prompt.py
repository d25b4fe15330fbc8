"""The prompts of the judges: what never changes first, then the figures of the day, then the data.

The first message is the same for every reply and the second one for a tax year, so that both are read from a
provider's cache. What people or models wrote stands in the last message, between marks that it cannot imitate.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING, Any, NamedTuple

from guidance_agent.compliance.data_blocks import block_code
from guidance_agent.compliance.judge_checks import judge_checks
from guidance_agent.core.templates import templates_of
from guidance_agent.core.types import CustomerProfile, HistoryEntry
from guidance_agent.errors import HistoryError
from guidance_agent.knowledge.loader import Knowledge
from guidance_agent.knowledge.tax_years import tax_year
from guidance_agent.llm.messages import Message

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["judge_prompt", "sentence_prompt"]

_SPEAKERS = {"customer": "customer", "user": "customer", "advisor": "service", "assistant": "service"}


class _Said(NamedTuple):
    speaker: str
    content: str


def judge_prompt(
    reply: str,
    *,
    question: str,
    history: Sequence[HistoryEntry],
    customer: CustomerProfile | None,
    complete: bool,
    on: date,
    knowledge: Knowledge,
) -> tuple[Message, ...]:
    """Return the prompt that judges a whole reply.

    Raises:
        HistoryError: when an entry of the history is none.
    """
    said = [_said(index, entry) for index, entry in enumerate(history)]
    values = None if customer is None else customer.prompt_values()
    profile = "" if values is None else json.dumps(values, ensure_ascii=False, sort_keys=True, indent=1)
    last = _render(
        "judge_reply.md.j2",
        code=block_code([profile, *[entry.content for entry in said], question, reply]),
        today=on.isoformat(),
        tax_year=tax_year(on),
        profile=profile,
        history=said,
        question=question,
        reply=reply,
        complete=complete,
    )
    return (
        Message("system", _instructions(), part="judge"),
        Message("system", _figures(knowledge, on), part="figures"),
        Message("user", last),
    )


def sentence_prompt(sentence: str, *, context: str, check: str) -> tuple[Message, ...]:
    """Return the prompt that decides about one sentence."""
    code = block_code([context, sentence])
    last = _render("gate_sentence.md.j2", code=code, context=context, sentence=sentence, check=check)
    return Message("system", _render("gate.md"), part="gate"), Message("user", last)


def _said(index: int, entry: HistoryEntry) -> _Said:
    role, content = entry.get("role"), entry.get("content")
    if role not in _SPEAKERS or not isinstance(content, str):
        raise HistoryError(
            f"History entry {index} has the role {role!r} and content of type {type(content).__name__}. Pass "
            '{"role": "customer" or "advisor", "content": "…"}.'
        )
    return _Said(_SPEAKERS[role], content)


@functools.cache
def _instructions() -> str:
    return _render("judge.md.j2", checks=tuple(judge_checks().values()))


def _figures(knowledge: Knowledge, on: date) -> str:
    return _render("judge_figures.md.j2", tax_year=tax_year(on), figures=knowledge.figures_on(on))


def _render(template: str, **values: Any) -> str:
    return _environment().get_template(template).render(**values)


@functools.cache
def _environment() -> Environment:
    return templates_of("guidance_agent.compliance")
