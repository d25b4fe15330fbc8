"""What judges may be made to say, and the reply that they say it of."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from guidance_agent.compliance.judge_checks import judge_checks
from guidance_agent.compliance.validator import GuidanceValidator
from guidance_agent.compliance.verdict import CHECKS, Verdict
from guidance_agent.llm.gateway import ModelGateway
from guidance_agent.llm.messages import ModelCall
from guidance_agent.provider_simulator import Fault, ProviderSimulator, Script

__all__ = [
    "FAST",
    "JUDGES",
    "KEYS",
    "QUESTION",
    "REPLY",
    "Calls",
    "Judging",
    "answer",
    "blocks_in",
    "entry",
    "judge_body",
    "passing",
]

KEYS = {"ANTHROPIC_API_KEY": "sk-ant-test-123456", "OPENAI_API_KEY": "sk-test-123456"}
JUDGES = {"anthropic": "anthropic/claude-sonnet-5", "openai": "openai/gpt-5.6-terra"}
FAST = {"anthropic": "anthropic/claude-haiku-5-5", "openai": "openai/gpt-6-luna"}

QUESTION = "Can I take money out of my pension to mend the roof?"
REPLY = (
    "You can choose between an annuity and drawdown, or leave the pot invested. An annuity pays an income for life and "
    "cannot be undone; money in drawdown can fall as well as rise, and may run out. In your own words, what would "
    "happen to your income if markets fell? MoneyHelper explains the options free of charge at moneyhelper.org.uk."
)
"""Discusses a decision, with its risks, a check of understanding and a signpost."""


class Calls(list[ModelCall]):
    """A usage sink that keeps what it is given."""

    def record(self, call: ModelCall) -> None:
        self.append(call)


class Judging(NamedTuple):
    """A validator, the simulator that its judge stands on, a fast model there, and the calls of both."""

    simulator: ProviderSimulator
    gateway: ModelGateway
    validator: GuidanceValidator
    fast: str
    calls: Calls

    def says(self, text: str, **script: Any) -> None:
        """Dictate the next answer of the judge."""
        self.simulator.faults.add(Fault(kind="script", script=Script(text=text, **script)))

    async def verdict(self, text: str = REPLY, **given: Any) -> Verdict:
        return await self.validator.validate(text, **({"question": QUESTION} | given))


def entry(name: str, **changes: Any) -> dict[str, Any]:
    """An entry that passes a check, with changes; a value of `...` takes the field out."""
    made = {
        "check": name,
        "quote": "",
        "explanation": "Nothing speaks against it.",
        "status": "pass",
        "severity": "none",
        "requirement": judge_checks()[name].requirement,  # type: ignore[index]
        **changes,
    }
    return {field: value for field, value in made.items() if value is not ...}


def answer(*entries: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    """An answer that passes every check, with the given entries in place of those for the same check."""
    given = {each["check"]: each for each in entries}
    made = {
        "reasoning": "The ways open stand side by side.",
        "checks": [given.get(name, entry(name)) for name in CHECKS],
        "confidence": 0.9,
        **changes,
    }
    return {field: value for field, value in made.items() if value is not ...}


def passing() -> str:
    """The text of an answer that passes every check."""
    return json.dumps(answer(), ensure_ascii=False)


def judge_body(simulator: ProviderSimulator) -> Mapping[str, Any]:
    """The body of the last request that the judge received."""
    body: Mapping[str, Any] = simulator.requests[-1].body
    return body


def blocks_in(message: str) -> list[tuple[str, str]]:
    """The blocks of a judge's last message by its own code: what they are called and what they hold."""
    code = re.match(r"The code of the blocks is ([0-9a-f]{16})\.", message)
    assert code is not None
    return re.findall(rf"<(\w+)-{code[1]}>\n(.*?)\n</\1-{code[1]}>", message, re.DOTALL)
