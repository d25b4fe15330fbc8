"""Everything that is decided before a turn begins: question, consultation, context and prompts."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

from guidance_agent import __version__
from guidance_agent.advisor.calculations import CALCULATION_TOKENS, CalculationStep, calculator_tools, may_need_sums
from guidance_agent.advisor.candidates import CandidateSupport
from guidance_agent.advisor.consultations import find_consultation, profile_changes, recorded_history
from guidance_agent.advisor.conversation import Conversation, emotional_tone, phase, read_conversation
from guidance_agent.advisor.gated_answer import AnswerGate
from guidance_agent.advisor.prompts import (
    CalculationLine,
    FactLine,
    FigureLine,
    MemoryLine,
    TurnContext,
    build_calculation_prompt,
    build_guidance_prompt,
    build_reasoning_prompt,
    build_refinement_prompt,
)
from guidance_agent.advisor.turn_plan import FoundIds, TurnPlan
from guidance_agent.advisor.turn_trace import share_turn
from guidance_agent.compliance.validation_trace import note_verdict, validation
from guidance_agent.core.journal import Row
from guidance_agent.core.schema import consultations, turns
from guidance_agent.core.types import AdvisorProfile, CustomerProfile, HistoryEntry
from guidance_agent.errors import PromptTooLongError
from guidance_agent.knowledge.loader import tax_year
from guidance_agent.llm.messages import Message, ModelRequest
from guidance_agent.llm.tokens import estimate_tokens
from guidance_agent.llm.tools import specs_of
from guidance_agent.retrieval.found import RetrievalLimits

if TYPE_CHECKING:
    import sqlalchemy as sa

    from guidance_agent.advisor.consultations import OpenConsultation
    from guidance_agent.advisor.services import AdvisorServices
    from guidance_agent.compliance.gate import TextGate
    from guidance_agent.compliance.verdict import Verdict
    from guidance_agent.retrieval.retriever import Retrieved

__all__ = ["REASONING_TOKENS", "TurnOptions", "plan_turn"]

REASONING_TOKENS = 60
"""Upper bound of the private notes before an answer, in tokens."""

_MEMORY_LIMIT = 2_000
_WITHOUT_MEMORIES = RetrievalLimits(memories=0)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TurnOptions:
    """What the caller chose for a turn."""

    use_reasoning: bool
    consultation_id: str | None
    model: str
    reasoning_model: str
    use_cache: bool
    busy: frozenset[str] = frozenset()
    """Consultations that are being answered now; one that is found by its history is not taken."""


async def plan_turn(
    services: AdvisorServices,
    advisor: AdvisorProfile,
    customer: CustomerProfile,
    history: Sequence[HistoryEntry] | None,
    options: TurnOptions,
) -> TurnPlan:
    """Read the input and prepare the turn; nothing is recorded and no model asked.

    Raises:
        InputError: when question, history or consultation do not fit together, or the model's context window is
            too small for them.
        ConfigurationError: when the model or its key is missing or unknown.
        StorageError: when the records cannot be read.
    """
    clock = services.clock
    started = clock.monotonic()
    if history is None and options.consultation_id is not None:
        history = await recorded_history(services.records, customer, options.consultation_id)
    conversation = read_conversation(customer, history)
    consultation = await find_consultation(
        services.records, clock, customer, conversation.history, options.consultation_id, busy=options.busy
    )
    turn_id = clock.new_id("turn")
    share_turn(services.tracing, customer, turn_id=turn_id, consultation_id=consultation.id)
    today = clock.today()
    found = await services.retriever.retrieve(
        conversation.question,
        customer_id=customer.customer_id,
        history_texts=[entry.content for entry in conversation.history if entry.role == "customer"],
        day=today,
        profile=customer,
        consultation_id=consultation.id,
        limits=None if consultation.has_memories else _WITHOUT_MEMORIES,
    )
    context = _context(found, conversation, today, profile_changes(consultation.profile, customer.prompt_values()))
    ids = {"turn_id": turn_id, "consultation_id": consultation.id}

    def request(operation: str, model: str, messages: tuple[Message, ...], limit: int) -> ModelRequest:
        return ModelRequest(
            model=model,
            messages=messages,
            max_tokens=limit,
            operation=operation,
            use_cache=options.use_cache,
            fallbacks=services.settings.fallbacks if operation not in ("reasoning", "calculation") else (),
            metadata=ids,
        )

    def answer(notes: str | None, sums: tuple[CalculationLine, ...]) -> ModelRequest:
        if notes is None and not sums:
            return without_notes
        return whole_request(dataclasses.replace(context, reasoning=notes, calculations=sums))

    def whole_request(with_notes: TurnContext) -> ModelRequest:
        messages = build_guidance_prompt(advisor, consultation.profile, conversation, with_notes, services.rules)
        return request("guidance", options.model, messages, services.settings.max_answer_tokens)

    without_notes = whole_request(context)
    _check_context_window(services, without_notes)
    reasoning = None
    if options.use_reasoning:
        services.gateway.traits(options.reasoning_model)
        messages = build_reasoning_prompt(advisor, consultation.profile, conversation, context, services.rules)
        reasoning = request("reasoning", options.reasoning_model, messages, REASONING_TOKENS)
    sums = None
    if services.settings.calculations.enabled and may_need_sums(conversation.question):
        messages = build_calculation_prompt(advisor, consultation.profile, conversation, context, services.rules)
        tools = await calculator_tools(services.knowledge, today)
        asked = request("calculation", options.reasoning_model, messages, CALCULATION_TOKENS)
        asked = dataclasses.replace(asked, tools=specs_of(tools))
        sums = CalculationStep(asked, tools, services.settings.calculations.deadline)

    async def judge(text: str, is_complete: bool) -> Verdict:
        with validation(services.tracing, text, purpose="candidate") as span:
            verdict = await services.validator.validate(
                text,
                question=conversation.question,
                history=[entry._asdict() for entry in conversation.history],
                customer=CustomerProfile.parse({**consultation.profile, "customer_id": customer.customer_id}),
                complete=is_complete,
                on=today,
                turn_id=turn_id,
                consultation_id=consultation.id,
            )
            note_verdict(span, verdict)
        return verdict

    def refine(first: ModelRequest, text: str, verdict: Verdict) -> ModelRequest:
        messages = build_refinement_prompt(
            first.messages, text, failures=verdict.failures, doubts=verdict.reasoning if verdict.passed else ""
        )
        return request("refinement", options.model, messages, services.settings.max_answer_tokens)

    found_ids = FoundIds(
        facts=tuple(item.fact.id for item in found.facts),
        cases=tuple(item.id for item in found.cases),
        rules=tuple(item.id for item in found.rules),
        memories=tuple(item.id for item in found.memories),
    )

    def memory_row(ended_at: datetime) -> Row:
        return services.memory.observation_row(
            customer_id=customer.customer_id,
            consultation_id=consultation.id,
            turn_id=turn_id,
            text=conversation.question[:_MEMORY_LIMIT],
            simulated=services.simulated,
            at=ended_at,
            embedding=found.question if len(conversation.question) <= _MEMORY_LIMIT else None,
        )

    return TurnPlan(
        turn_id=turn_id,
        consultation_id=consultation.id,
        customer_id=customer.customer_id,
        question=conversation.question,
        model=options.model,
        opening=_opening(services, advisor, customer, conversation, consultation, turn_id, options.model, found_ids),
        continues=None if consultation.is_new else consultation.ordinal,
        transcript=consultation.transcript,
        found=found_ids,
        reasoning=reasoning,
        sums=sums,
        answer=answer,
        memory_row=memory_row,
        gate=lambda: _gate(services, conversation.question, today),
        candidates=CandidateSupport(judge=judge, refine=refine),
        started=started,
        simulated=services.simulated,
    )


def _gate(services: AdvisorServices, question: str, today: date) -> AnswerGate:
    settings, asker = services.settings.gate, services.sentence_judge

    async def make() -> TextGate:
        await services.gates.ready()
        return services.gates.gate(today, question=question, asks=asker is not None)

    return AnswerGate(
        prepare=services.gates.begin,
        make=make,
        policy_version=services.gates.policy_version,
        asker=asker,
        deadline=settings.deadline,
        adds_closing=settings.closing,
    )


def _context(found: Retrieved, conversation: Conversation, today: date, changes: tuple[str, ...]) -> TurnContext:
    return TurnContext(
        today=today.isoformat(),
        tax_year=tax_year(today),
        facts=tuple(
            FactLine(
                id=item.fact.id,
                statement=item.fact.statement,
                source=item.fact.source if item.fact.citable else None,
                status=item.status,
                effective_from=item.fact.effective_from.isoformat(),
                valid_until=None if item.fact.valid_until is None else item.fact.valid_until.isoformat(),
            )
            for item in found.facts
        ),
        figures=tuple(FigureLine(item.name, f"{item.text} ({item.period})") for item in found.figures),
        unknowns=tuple(f"{item.subject}: {item.answer}" for item in found.unknowns),
        cases=tuple(item.text for item in found.cases),
        rules=tuple(item.text for item in found.rules),
        memories=tuple(MemoryLine(item.text, item.created_at.date().isoformat()) for item in found.memories),
        profile_changes=changes,
        phase=phase(conversation),
        tone=emotional_tone(conversation.question),
    )


def _opening(
    services: AdvisorServices,
    advisor: AdvisorProfile,
    customer: CustomerProfile,
    conversation: Conversation,
    consultation: OpenConsultation,
    turn_id: str,
    model: str,
    found: FoundIds,
) -> tuple[tuple[sa.Table, Row], ...]:
    clock, journal = services.clock, services.journal
    turn_row: dict[str, Any] = {
        "id": turn_id,
        "consultation_id": consultation.id,
        "ordinal": consultation.ordinal,
        "state": "streaming",
        "question": conversation.question,
        "model": model,
        "simulated": services.simulated,
        "owner": journal.owner,
        "lease_until": journal.lease_until(),
        "started_at": clock.now(),
        "last_sequence": -1,
        "traceparent": services.tracing.current_span.traceparent,
        "context": {
            **found._asdict(),
            "knowledge_version": services.retriever.knowledge_version,
            "rules_version": services.rules.version,
            "gate_version": services.gates.policy_version,
            "package_version": __version__,
        },
    }
    if not consultation.is_new:
        return ((turns, turn_row),)
    consultation_row = consultation.row(
        customer, advisor_id=advisor.advisor_id, clock=clock, simulated=services.simulated
    )
    return ((consultations, consultation_row), (turns, turn_row))


def _check_context_window(services: AdvisorServices, request: ModelRequest) -> None:
    window = services.gateway.traits(request.model).context_window
    characters = sum(len(message.content) for message in request.messages)
    # No token is shorter than a character: what fits by characters needs no estimate.
    if window is None or characters + request.max_tokens <= window:
        return
    tokens = sum(estimate_tokens(message.content) for message in request.messages)
    # An estimate that may be a fifth too high must not refuse what the provider would take.
    if tokens * 0.8 + request.max_tokens > window:
        raise PromptTooLongError(
            f"The prompt has about {tokens} tokens and the answer up to {request.max_tokens}; {request.model} takes "
            f"{window} in all. Shorten the question or the history."
        )
