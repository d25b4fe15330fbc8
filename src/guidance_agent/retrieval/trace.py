"""A search as a span: what was asked, and each thing that was found with its id and its score."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import NamedTuple

from guidance_agent.retrieval.found import Retrieved
from guidance_agent.tracing import attributes as names
from guidance_agent.tracing.span import Attributes, Value

__all__ = ["attributes_of"]


class _Document(NamedTuple):
    id: str
    kind: str
    text: str
    score: float
    status: str | None = None


def attributes_of(found: Retrieved) -> Attributes:
    """Return what a span says of a search."""
    made: dict[str, Value] = {
        names.RETRIEVAL_FACTS: len(found.facts),
        names.RETRIEVAL_CASES: len(found.cases),
        names.RETRIEVAL_RULES: len(found.rules),
        names.RETRIEVAL_MEMORIES: len(found.memories),
        names.RETRIEVAL_FIGURES: [figure.id for figure in found.figures] or None,
        names.RETRIEVAL_TOPICS: list(found.topics) or None,
        names.RETRIEVAL_DEGRADED: found.degraded,
    }
    for number, document in enumerate(_documents(found)):
        about = {"kind": document.kind} | ({} if document.status is None else {"status": document.status})
        made[names.document(number, names.DOCUMENT_ID)] = document.id
        made[names.document(number, names.DOCUMENT_SCORE)] = document.score
        made[names.document(number, names.DOCUMENT_CONTENT)] = document.text
        made[names.document(number, names.DOCUMENT_METADATA)] = json.dumps(about)
    return made


def _documents(found: Retrieved) -> Iterator[_Document]:
    for fact in found.facts:
        yield _Document(fact.fact.id, "fact", fact.fact.statement, float(fact.score), fact.status)
    for case in found.cases:
        yield _Document(case.id, "case", case.text, float(case.score))
    for rule in found.rules:
        yield _Document(rule.id, "rule", rule.text, float(rule.score))
    for memory in found.memories:
        yield _Document(memory.id, "memory", memory.text, float(memory.score))
