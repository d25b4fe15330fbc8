"""Reflection in four steps: a principle from a failure, validated, refined, and judged by what it adds.

    reflect_on_failure ─► validate_principle ─► refine_principle ─► judge_rule_value

Each step is a pair of pure functions and a call that joins them. `STEPS[...].request(...)` makes the request and
`.read(...)` the typed answer, so that a batch sends the same bodies and reads by the same rules; the functions named
above ask at once. What cannot be read in exactly one way raises `StructuredOutputError`: it is never an answer, and
whoever asked keeps the principle from going on. `learn_from_failures_batch` and `process_batch_reflection_results` take
many failures through the same steps in rounds of batches.

A principle is the work of a model that read what a customer wrote. Nothing here makes it a rule: the program's own
checks (`rule_checks.py`), the check set and a person stand after it.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pydantic import BaseModel

from guidance_agent.learning.answers import Refinement, Reflection, RuleValue, Validation
from guidance_agent.learning.prompts import (
    StepName,
    refinement_prompt,
    reflection_prompt,
    validation_prompt,
    value_prompt,
)
from guidance_agent.llm import structured
from guidance_agent.llm.messages import Completion, Message, ModelRequest

if TYPE_CHECKING:
    from guidance_agent.core.batch_processing import BatchProcessor
    from guidance_agent.core.batch_work import WorkStanding
    from guidance_agent.learning.batch_reflection import ReflectionRounds
    from guidance_agent.learning.failures import Failure
    from guidance_agent.llm.gateway import ModelGateway
    from guidance_agent.llm.structured import StructuredCompletion

__all__ = [
    "JUDGE_VALUE",
    "REFINE",
    "REFLECT",
    "STEPS",
    "VALIDATE",
    "ReflectionStep",
    "judge_rule_value",
    "refine_principle",
    "refinement_request",
    "reflect_on_failure",
    "reflection_request",
    "validate_principle",
    "validation_request",
    "value_request",
]

Answer = TypeVar("Answer", bound=BaseModel)

_ANSWER_TOKENS = 4_000
"""Room for a model that cannot but think, too: a request must be the same in a batch, where nothing is added to it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReflectionStep(Generic[Answer]):
    """One of the four steps.

    Attributes:
        name: Its name, as the records keep it.
        operation: What its calls are for, as usage and settings name it.
        output: What its answers are.
    """

    name: StepName
    operation: str
    output: type[Answer]

    def request(self, model: str, messages: tuple[Message, ...], ids: Mapping[str, str]) -> ModelRequest:
        """Return the request of this step: the same for a call and for an item of a batch.

        Args:
            model: Name with its provider.
            messages: The prompt.
            ids: Kept with the usage of the call, never sent.
        """
        return ModelRequest(
            model=model,
            messages=messages,
            max_tokens=_ANSWER_TOKENS,
            operation=self.operation,
            response_schema=_schema(self.output),
            metadata=dict(ids),
        )

    def read(self, completion: Completion) -> Answer:
        """Return what an answer says; raise `StructuredOutputError` when it cannot be read."""
        return structured.read_answer(completion, self.output)

    async def ask(self, gateway: ModelGateway, request: ModelRequest) -> StructuredCompletion[Answer]:
        """Ask now. Raises `StructuredOutputError` for what cannot be read, another `ModelError` for what failed."""
        return await structured.complete(gateway, request, output=self.output)


@functools.cache
def _schema(output: type[BaseModel]) -> Mapping[str, Any]:
    return structured.answer_schema(output)


REFLECT = ReflectionStep(name="reflect", operation="reflection", output=Reflection)
VALIDATE = ReflectionStep(name="validate", operation="principle_validation", output=Validation)
REFINE = ReflectionStep(name="refine", operation="principle_refinement", output=Refinement)
JUDGE_VALUE = ReflectionStep(name="value", operation="rule_value", output=RuleValue)

STEPS: Mapping[StepName, ReflectionStep[Any]] = {step.name: step for step in (REFLECT, VALIDATE, REFINE, JUDGE_VALUE)}
"""The steps in their order."""


def reflection_request(model: str, failure: Failure) -> ModelRequest:
    """Return the request of the first step."""
    return REFLECT.request(model, reflection_prompt(failure), _ids(failure))


def validation_request(model: str, failure: Failure, reflection: Reflection) -> ModelRequest:
    """Return the request of the second step."""
    return VALIDATE.request(model, validation_prompt(failure, reflection), _ids(failure))


def refinement_request(model: str, failure: Failure, reflection: Reflection, validation: Validation) -> ModelRequest:
    """Return the request of the third step; of the failure only its ids go along."""
    return REFINE.request(model, refinement_prompt(reflection, validation), _ids(failure))


def value_request(
    model: str,
    failure: Failure,
    refinement: Refinement,
    reflection: Reflection,
    validation: Validation,
    *,
    rules: Sequence[str],
) -> ModelRequest:
    """Return the request of the last step; `rules` are the texts of those that there are."""
    messages = value_prompt(
        refinement.rule, principle=reflection.principle, requirement=validation.requirement, rules=rules
    )
    return JUDGE_VALUE.request(model, messages, _ids(failure))


async def reflect_on_failure(gateway: ModelGateway, model: str, failure: Failure) -> StructuredCompletion[Reflection]:
    """Draw a principle from a failure; an empty one is that it teaches nothing.

    Raises:
        StructuredOutputError: the answer cannot be read, and is none.
        ModelError: the model could not be asked.
    """
    return await REFLECT.ask(gateway, reflection_request(model, failure))


async def validate_principle(
    gateway: ModelGateway, model: str, failure: Failure, reflection: Reflection
) -> StructuredCompletion[Validation]:
    """Have a principle tried by somebody who did not write it; raises as `reflect_on_failure`."""
    return await VALIDATE.ask(gateway, validation_request(model, failure, reflection))


async def refine_principle(
    gateway: ModelGateway, model: str, failure: Failure, reflection: Reflection, validation: Validation
) -> StructuredCompletion[Refinement]:
    """Put a valid principle into the words of a rule; raises as `reflect_on_failure`."""
    return await REFINE.ask(gateway, refinement_request(model, failure, reflection, validation))


async def judge_rule_value(
    gateway: ModelGateway,
    model: str,
    failure: Failure,
    refinement: Refinement,
    reflection: Reflection,
    validation: Validation,
    *,
    rules: Sequence[str],
) -> StructuredCompletion[RuleValue]:
    """Judge what a rule adds to `rules`, those that there are; raises as `reflect_on_failure`."""
    request = value_request(model, failure, refinement, reflection, validation, rules=rules)
    return await JUDGE_VALUE.ask(gateway, request)


async def learn_from_failures_batch(rounds: ReflectionRounds, batches: BatchProcessor, *, limit: int = 500) -> int:
    """Begin to reflect on new failures at the batch price, and return how many requests were submitted.

    Args:
        rounds: The reflections; `Runtime.reflection_rounds()`.
        batches: Knows `rounds.kinds`.
        limit: On how many failures at most.

    Raises:
        ConfigurationError: the model cannot be called as things are set up, or has no batch API.
    """
    await rounds.open_new(limit=limit)
    return await rounds.advance(batches)


async def process_batch_reflection_results(rounds: ReflectionRounds, batches: BatchProcessor) -> WorkStanding:
    """Take in what batches have brought, submit the next round, and return how much stands where.

    To be called whenever it suits; four rounds after `learn_from_failures_batch` all is done. Raises what that raises.
    """
    await batches.resume()
    await rounds.advance(batches)
    return await rounds.standing()


def _ids(failure: Failure) -> dict[str, str]:
    return {"turn_id": failure.turn_id, "consultation_id": failure.consultation_id}
