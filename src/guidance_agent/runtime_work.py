"""The work on what is on record, made from the parts of a runtime: what learns, audits, consolidates and reports."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from guidance_agent.compliance.audit import AuditRounds
    from guidance_agent.compliance.validator import GuidanceValidator
    from guidance_agent.core.clock import Clock
    from guidance_agent.core.database import Database
    from guidance_agent.knowledge.loader import Knowledge
    from guidance_agent.learning.batch_reflection import ReflectionRounds
    from guidance_agent.learning.consolidation import MemoryConsolidation
    from guidance_agent.learning.insights import InsightRounds
    from guidance_agent.learning.learner import Learner
    from guidance_agent.learning.rules import RulesBase
    from guidance_agent.llm.gateway import ModelGateway
    from guidance_agent.retrieval.embeddings import Embedder
    from guidance_agent.settings import Settings

__all__ = ["WorkOfRecords"]


class WorkOfRecords:
    """What an open runtime makes for those who work on its records; a runtime sets the parts."""

    settings: Settings
    clock: Clock
    database: Database
    gateway: ModelGateway
    knowledge: Knowledge
    simulated: bool
    validator: GuidanceValidator
    _embedder: Embedder

    def rules_base(self) -> RulesBase:
        """Return the learned rules, to list, release, roll back and report on."""
        from guidance_agent.learning.rules import RulesBase

        return RulesBase(self.database, self.clock, self.knowledge, self._embedder, include_simulated=self.simulated)

    def learner(self) -> Learner:
        """Return what reflects on failures, with the model that judges and not with the one that writes."""
        from guidance_agent.learning.learner import Learner

        return Learner(self.database, self.clock, self.gateway, self.validator.model, self.rules_base())

    def reflection_rounds(self) -> ReflectionRounds:
        """Return what reflects on failures in rounds of batches, with the same model."""
        from guidance_agent.learning.batch_reflection import ReflectionRounds

        return ReflectionRounds(self.database, self.clock, self.validator.model, self.rules_base())

    def audit_rounds(self) -> AuditRounds:
        """Return what audits delivered answers in batches, asking what is asked while answers are given."""
        from guidance_agent.compliance.audit import AuditPlan, AuditRounds

        plan = AuditPlan(share=self.settings.audit.share, model=self.settings.audit.model)
        return AuditRounds(self.database, self.clock, self.validator, plan=plan, simulated=self.simulated)

    def consolidation(self) -> MemoryConsolidation:
        """Return the batch work that turns a customer's many observations into a few reflections."""
        from guidance_agent.learning.consolidation import MemoryConsolidation

        return MemoryConsolidation(
            self.database, self.clock, self.knowledge, self.validator.model, include_simulated=self.simulated
        )

    def insight_rounds(self) -> InsightRounds:
        """Return the batch work that reports on each day's consultations."""
        from guidance_agent.learning.insights import InsightRounds

        return InsightRounds(self.database, self.clock, self.validator.model, include_simulated=self.simulated)
