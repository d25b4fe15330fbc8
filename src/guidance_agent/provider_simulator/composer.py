"""Decides what kind of answer a request wants, and composes it."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import Any

from guidance_agent.provider_simulator.answer import Answer, ToolUse
from guidance_agent.provider_simulator.answers.citations import cite
from guidance_agent.provider_simulator.answers.findings import describe_findings
from guidance_agent.provider_simulator.answers.guidance import guidance_text, notes_text
from guidance_agent.provider_simulator.answers.judgement import find_steer, judged_text
from guidance_agent.provider_simulator.answers.reading import read_prompt, shown_schema, stems, tagged
from guidance_agent.provider_simulator.prompt import Prompt
from guidance_agent.provider_simulator.schema_values import value_for_schema
from guidance_agent.provider_simulator.scripts import Script
from guidance_agent.provider_simulator.settings import SimulatorSettings
from guidance_agent.provider_simulator.tokens import split_tokens

__all__ = ["Composer"]

_NOTES = re.compile(r"\b(?:private|brief|short|terse)\b[^.\n]{0,40}\b(?:notes?|reasoning|thoughts)\b", re.IGNORECASE)
_RATING = re.compile(
    r"\b(?:rate|rating|score|scale)\b.{0,200}?\b(?:from )?1 (?:to|-|–) 10\b", re.IGNORECASE | re.DOTALL
)
_WANTS_JSON = re.compile(r"\bJSON\b")
_NOTES_LIMIT = 100
_WEIGHTY = stems(
    "transfer guarantee safeguarded defined benefit health scam fraud debt partner died divorce vulnerable carer "
    "benefits loss abuse redundancy dependants disability inheritance"
)
_THINKING = (
    "The question is about {subject}. The facts in the prompt come first, then the ways open with the risks of each, "
    "at the same depth. No steer. One check of understanding, then where free help is to be had."
)


@lru_cache(maxsize=256)
def _asks_for_rating(text: str) -> bool:
    return _RATING.search(text) is not None


class Composer:
    """Answers prompts. The answer follows from the prompt and the seed alone."""

    def __init__(self, settings: SimulatorSettings) -> None:
        self._settings = settings

    def reply(self, prompt: Prompt, script: Script | None, *, chunk_tokens: int) -> Answer:
        """What the model says to a prompt, or what a script dictates, within the limits of the request."""
        chunk_tokens = self._settings.chunk_tokens or chunk_tokens
        if script is not None and script.decides_words:
            answer = script.answer(chunk_tokens=chunk_tokens)
            if script.chunks is not None or script.bytes is not None:
                # A scripted length is a promise to the benchmark; the request's own limits would break it.
                return answer
        else:
            answer = self.answer(prompt, chunk_tokens=chunk_tokens)
        return answer.stopped_at(prompt.stop).limited(prompt.max_tokens)

    def answer(self, prompt: Prompt, *, chunk_tokens: int) -> Answer:
        """The answer to a prompt, its text cut into chunks of `chunk_tokens`."""
        forced = next((tool for tool in prompt.tools if tool.forced), None)
        if forced is not None:
            arguments = self._structured(prompt, forced.schema)
            return Answer(
                pieces=(),
                text_tokens=0,
                tools=(ToolUse(forced.name, arguments if isinstance(arguments, dict) else {}),),
                stop="tool",
            )
        if prompt.max_tokens == 0:
            return Answer(pieces=(), text_tokens=0, stop="length")
        tokens = split_tokens(self._text(prompt))
        pieces = tuple("".join(tokens[start : start + chunk_tokens]) for start in range(0, len(tokens), chunk_tokens))
        reasoning = self._thinking(prompt) if prompt.thinking else ""
        return Answer(pieces=pieces, text_tokens=len(tokens), reasoning=reasoning)

    def _text(self, prompt: Prompt) -> str:
        schema = prompt.schema or next(filter(None, map(shown_schema, prompt.system)), None)
        if schema is not None:
            return json.dumps(self._structured(prompt, schema), ensure_ascii=False)
        last = prompt.last_message
        if any(_asks_for_rating(text) for text in (last, *prompt.system)):
            importance = self._importance(last)
            wants_json = prompt.json_object or _WANTS_JSON.search("\n".join((*prompt.system, last)))
            return json.dumps({"importance": importance}) if wants_json else str(importance)
        reading = read_prompt(prompt)
        if prompt.json_object:
            return json.dumps({"answer": notes_text(reading)}, ensure_ascii=False)
        if prompt.max_tokens <= _NOTES_LIMIT and _NOTES.search(last):
            return notes_text(reading)
        return guidance_text(reading, seed=self._settings.seed, target_tokens=self._settings.answer_tokens)

    def _thinking(self, prompt: Prompt) -> str:
        words = " ".join(read_prompt(prompt).question.split()[:12])
        return _THINKING.format(subject=f"“{words}”")

    def _importance(self, message: str) -> int:
        observation = tagged(message, "observation") or message
        return min(10, 3 + 2 * len(stems(observation) & _WEIGHTY))

    def _structured(self, prompt: Prompt, schema: Any) -> Any:
        steer = find_steer(prompt.last_message)
        value = value_for_schema(schema, seed=self._settings.seed, steer=steer)
        if isinstance(value, dict) and isinstance(value.get("importance"), int):
            value["importance"] = self._importance(prompt.last_message)
        cite(value, prompt.last_message)
        if (text := judged_text(prompt.last_message)) is not None:
            describe_findings(value, text=text, steer=steer, system=prompt.system)
        return value
