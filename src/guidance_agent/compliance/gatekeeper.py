"""Makes the gate of each answer, from settings and knowledge, and says which rules and policy it went by."""

from __future__ import annotations

from datetime import date

from guidance_agent.compliance.closing import closing_version
from guidance_agent.compliance.dated_rules import GateRules
from guidance_agent.compliance.gate import OpenGate, SentenceGate, TextGate
from guidance_agent.compliance.policy import load_policy, policy_fingerprint
from guidance_agent.knowledge.loader import Knowledge
from guidance_agent.settings import GateSettings

__all__ = ["Gatekeeper"]


class Gatekeeper:
    """Rules and policy of a process. Building one reads files and takes a moment; a server does so before it serves.

    Raises:
        ConfigurationError: when the settings name a check that does not exist.
    """

    def __init__(self, settings: GateSettings, knowledge: Knowledge) -> None:
        self.policy = load_policy(settings.actions)
        self._settings = settings
        self._rules = GateRules(knowledge) if settings.mode == "on" else None
        self.policy_version = policy_fingerprint(
            self._rules.version if self._rules is not None else "open",
            settings.undecided,
            closing_version() if settings.closing else "",
            policy=self.policy,
        )

    def gate(self, day: date, *, question: str, asks: bool) -> TextGate:
        """Return the gate of one answer.

        Args:
            day: The day whose figures are right.
            question: What the customer asked.
            asks: Whether somebody answers questions about sentences that the rules leave undecided.
        """
        if self._rules is None:
            return OpenGate()
        settings = self._settings
        return SentenceGate(
            self._rules.on(day),
            self.policy,
            asks=asks and settings.ask,
            undecided=settings.undecided,
            before=question,
        )
