"""Composes what the simulated model says."""

from __future__ import annotations

from guidance_agent.provider_simulator.answer import Answer
from guidance_agent.provider_simulator.prompt import Prompt
from guidance_agent.provider_simulator.settings import SimulatorSettings
from guidance_agent.provider_simulator.tokens import split_tokens


class Composer:
    def __init__(self, settings: SimulatorSettings) -> None:
        self._settings = settings

    def answer(self, prompt: Prompt, *, chunk_tokens: int) -> Answer:
        text = "There are several ways to take money from a pension, each with its own tax and risks. " * 18
        tokens = split_tokens(text.strip())
        pieces = tuple("".join(tokens[i : i + chunk_tokens]) for i in range(0, len(tokens), chunk_tokens))
        return Answer(pieces=pieces, text_tokens=len(tokens))
