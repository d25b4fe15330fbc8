"""The names that are written out here are those of the packages that they come from."""

from __future__ import annotations

from openinference.semconv.resource import ResourceAttributes
from openinference.semconv.trace import (
    DocumentAttributes,
    EmbeddingAttributes,
    MessageAttributes,
    OpenInferenceSpanKindValues,
    SpanAttributes,
    ToolCallAttributes,
)
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
from opentelemetry.semconv.attributes import exception_attributes, service_attributes

from guidance_agent.tracing import attributes as names

OPENINFERENCE = {
    value
    for holder in (
        SpanAttributes,
        DocumentAttributes,
        EmbeddingAttributes,
        MessageAttributes,
        ToolCallAttributes,
        ResourceAttributes,
    )
    for name, value in vars(holder).items()
    if name.isupper()
}
GEN_AI = {
    value for name, value in vars(gen_ai_attributes).items() if name.startswith("GEN_AI") and isinstance(value, str)
}
STANDARD = {
    exception_attributes.EXCEPTION_TYPE,
    exception_attributes.EXCEPTION_MESSAGE,
    service_attributes.SERVICE_NAME,
    service_attributes.SERVICE_VERSION,
}
NO_ATTRIBUTES = {"GUIDANCE", "TEXT", "JSON", "EXCEPTION", "ATTEMPT", "ATTEMPT_FAILED", "OPERATION_KINDS"}


def test_every_name_is_one_of_its_family() -> None:
    ours: set[str] = set()
    theirs: set[str] = set()
    for name, value in vars(names).items():
        if not name.isupper() or name in NO_ATTRIBUTES or not isinstance(value, str):
            continue
        (ours if value.startswith("guidance.") else theirs).add(value)
    unknown = theirs - OPENINFERENCE - GEN_AI - STANDARD
    assert not unknown
    assert len(ours) > 40


def test_kinds_are_openinferences() -> None:
    known = {kind.value for kind in OpenInferenceSpanKindValues}
    assert {"AGENT", "CHAIN", "EMBEDDING", "EVALUATOR", "GUARDRAIL", "LLM", "RETRIEVER"} <= known


def test_places_of_messages_and_documents_follow_openinference() -> None:
    of = SpanAttributes
    assert names.input_message(3, names.MESSAGE_ROLE) == f"{of.LLM_INPUT_MESSAGES}.3.{MessageAttributes.MESSAGE_ROLE}"
    content = MessageAttributes.MESSAGE_CONTENT
    assert names.output_message(0, names.MESSAGE_CONTENT) == f"{of.LLM_OUTPUT_MESSAGES}.0.{content}"
    assert names.document(2, names.DOCUMENT_ID) == f"{of.RETRIEVAL_DOCUMENTS}.2.{DocumentAttributes.DOCUMENT_ID}"
    assert names.embedded_text(1) == f"{of.EMBEDDING_EMBEDDINGS}.1.{EmbeddingAttributes.EMBEDDING_TEXT}"
