"""Makes the gate of each answer, from settings and knowledge, and says which rules and policy it went by.

Rules and models take some tenths of a second to read. They are read in a thread while the first answer is waited for;
what they are called is known before that.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import date
from typing import TYPE_CHECKING

from guidance_agent.compliance.closing import closing_version
from guidance_agent.compliance.gate import OpenGate, SentenceGate, TextGate
from guidance_agent.compliance.policy import load_policy, policy_fingerprint
from guidance_agent.compliance.rules_version import fitted_version, gate_rules_version
from guidance_agent.errors import KnowledgeError
from guidance_agent.knowledge.loader import Knowledge
from guidance_agent.settings import GateSettings

if TYPE_CHECKING:
    from guidance_agent.compliance.dated_rules import GateRules

__all__ = ["Gatekeeper"]

_logger = logging.getLogger("guidance_agent.gate")


class Gatekeeper:
    """Rules and policy of a process.

    Args:
        settings: What is done about breaches and doubts.
        knowledge: The dated facts.

    Attributes:
        policy: What is done about a breach, by the name of the check.
        policy_version: Fingerprint of rules, knowledge, policy, closing material and the settings that matter.

    Raises:
        ConfigurationError: when the settings name a check that does not exist.
    """

    def __init__(self, settings: GateSettings, knowledge: Knowledge) -> None:
        self.policy = load_policy(settings.actions)
        self._settings = settings
        self._knowledge = knowledge
        self._is_open = settings.mode == "off"
        self._rules: GateRules | None = None
        self._reading: asyncio.Task[GateRules] | None = None
        self._version = "open" if self._is_open else gate_rules_version(fitted_version(), knowledge)
        self.policy_version = policy_fingerprint(
            self._version,
            settings.undecided,
            closing_version() if settings.closing else "",
            policy=self.policy,
        )

    def begin(self) -> None:
        """Begin to read the rules in a thread, unless that has been done; after a failure it is tried again."""
        if self._is_open or self._rules is not None:
            return
        if self._reading is None or (self._reading.done() and _failure(self._reading) is not None):
            self._reading = asyncio.create_task(asyncio.to_thread(self._read), name="rules of the gate")

    async def ready(self) -> None:
        """Wait until gates can be made without reading anything.

        Raises:
            ConfigurationError: when a topic names a figure that the knowledge does not have.
            KnowledgeError: when a file cannot be used.
        """
        self.begin()
        if self._reading is not None and self._rules is None:
            # Others wait for it, too: whoever is cancelled meanwhile leaves it to them.
            self._rules = await asyncio.shield(self._reading)

    async def aclose(self) -> None:
        """Wait for the thread that reads, if there is one."""
        reading, self._reading = self._reading, None
        if reading is not None:
            await asyncio.wait({reading})
            if (failure := _failure(reading)) is not None:
                _logger.warning("the rules of the gate could not be read: error=%s", type(failure).__name__)

    def gate(self, day: date, *, question: str, asks: bool) -> TextGate:
        """Return the gate of one answer; reads the rules first where nobody has waited for `ready`.

        Args:
            day: The day whose figures are right.
            question: What the customer asked.
            asks: Whether somebody answers questions about sentences that the rules leave undecided.
        """
        if self._is_open:
            return OpenGate()
        if self._rules is None:
            self._rules = self._read()
        settings = self._settings
        return SentenceGate(
            self._rules.on(day),
            self.policy,
            asks=asks and settings.ask,
            undecided=settings.undecided,
            before=question,
        )

    def _read(self) -> GateRules:
        from guidance_agent.compliance.dated_rules import GateRules

        rules = GateRules(self._knowledge)
        if rules.version != self._version:
            raise KnowledgeError(
                f"The models of the gate are {rules.version!r} and not {self._version!r}, as the file beside them "
                "says. Install the package again, or fit them again with `python -m fitting`."
            )
        return rules


def _failure(reading: asyncio.Task[GateRules]) -> BaseException | None:
    return asyncio.CancelledError() if reading.cancelled() else reading.exception()
