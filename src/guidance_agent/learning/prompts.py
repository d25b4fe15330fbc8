"""The prompts of the four steps: what they share first, then the step, then the data.

The first message is the same for all four and the second for every failure, so that both are read from a provider's
cache. What people or models wrote stands in the last message, between marks that it cannot imitate.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from guidance_agent.compliance.data_blocks import block_code
from guidance_agent.compliance.judge_checks import judge_checks
from guidance_agent.learning.answers import LONGEST_RULE, Reflection, Validation
from guidance_agent.learning.rendering import render_prompt
from guidance_agent.llm.messages import Message

if TYPE_CHECKING:
    from guidance_agent.learning.failures import Failure

__all__ = ["StepName", "refinement_prompt", "reflection_prompt", "validation_prompt", "value_prompt"]

StepName = Literal["reflect", "validate", "refine", "value"]


def reflection_prompt(failure: Failure) -> tuple[Message, ...]:
    """Return the prompt that draws a principle from a failure."""
    return (*_stable("reflect"), _last("failure.md.j2", _texts_of(failure), **_values_of(failure)))


def validation_prompt(failure: Failure, reflection: Reflection) -> tuple[Message, ...]:
    """Return the prompt that tries to break a principle."""
    said = {"cause": reflection.cause, "principle": reflection.principle}
    last = _last(
        "principle.md.j2",
        [*_texts_of(failure), *said.values()],
        requirement=reflection.requirement,
        **said,
        **_values_of(failure),
    )
    return (*_stable("validate"), last)


def refinement_prompt(reflection: Reflection, validation: Validation) -> tuple[Message, ...]:
    """Return the prompt that puts a valid principle into the words of a rule."""
    said = {"principle": reflection.principle, "reason": validation.reason}
    last = _last("valid_principle.md.j2", [*said.values()], requirement=validation.requirement, **said)
    return (*_stable("refine"), last)


def value_prompt(rule: str, *, principle: str, requirement: str, rules: Sequence[str]) -> tuple[Message, ...]:
    """Return the prompt that judges what a rule adds to `rules`, those that there are."""
    said = {"principle": principle, "rule": rule}
    last = _last("rule.md.j2", [*said.values(), *rules], requirement=requirement, rules=tuple(rules), **said)
    return (*_stable("value"), last)


def _texts_of(failure: Failure) -> list[str]:
    checks = [text or "" for check in failure.checks for text in (check.quote, check.explanation)]
    return [failure.question, failure.text, failure.reason or "", *checks]


def _values_of(failure: Failure) -> dict[str, Any]:
    return {
        "question": failure.question,
        "text": failure.text,
        "checks": failure.checks,
        "reason": failure.reason,
    }


def _last(template: str, texts: Sequence[str], **values: Any) -> Message:
    return Message("user", render_prompt(template, code=block_code(texts), **values))


@functools.cache
def _stable(step: StepName) -> tuple[Message, Message]:
    shared = render_prompt("learning.md.j2", checks=tuple(judge_checks().values()), longest=LONGEST_RULE)
    return Message("system", shared, part="learning"), Message("system", render_prompt(f"{step}.md"), part="step")
