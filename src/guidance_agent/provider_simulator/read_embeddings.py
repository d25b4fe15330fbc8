"""Reads and validates a request for embeddings, and answers it."""

from __future__ import annotations

from array import array
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from guidance_agent.provider_simulator.embedding_vectors import embed_text
from guidance_agent.provider_simulator.models import ModelSpec
from guidance_agent.provider_simulator.read_openai import resolve_or_404
from guidance_agent.provider_simulator.settings import SimulatorSettings
from guidance_agent.provider_simulator.tokens import count_tokens
from guidance_agent.provider_simulator.wire_errors import ProviderError

__all__ = ["EmbeddingJob", "read_embeddings"]

_MOST_INPUTS = 2_048
_MOST_TOKENS = 300_000


def _invalid(message: str, param: str) -> ProviderError:
    return ProviderError(400, "invalid_request_error", message, param=param)


def _inputs(body: Mapping[str, Any]) -> list[str]:
    raw = body.get("input")
    texts = [raw] if isinstance(raw, str) else raw
    if isinstance(texts, list) and texts and all(isinstance(number, int) for number in texts):
        texts = [texts]
    if not isinstance(texts, list) or not texts or len(texts) > _MOST_INPUTS:
        raise _invalid(f"'$.input' is invalid. Expected a string or an array of 1 to {_MOST_INPUTS} strings.", "input")
    # Token numbers have no text here: they stand for themselves.
    words = [text if isinstance(text, str) else " ".join(map(str, text)) for text in texts]
    if not all(words):
        raise _invalid("'$.input' is invalid: an input must not be an empty string.", "input")
    return words


def _dimensions(body: Mapping[str, Any], model: ModelSpec) -> int:
    wanted = body.get("dimensions", model.dimensions)
    if not isinstance(wanted, int) or not 1 <= wanted <= model.dimensions:
        raise _invalid(
            f"Invalid value for 'dimensions' = {wanted}. Must be between 1 and {model.dimensions}.", "dimensions"
        )
    return wanted


def _encoded(vector: Sequence[float], encoding: str) -> list[float] | str:
    if encoding == "base64":
        return b64encode(array("f", vector).tobytes()).decode()
    return [round(x, 9) for x in vector]


def _vectors(texts: Sequence[str], dimensions: int, encoding: str) -> list[list[float] | str]:
    return [_encoded(embed_text(text, dimensions), encoding) for text in texts]


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingJob:
    """A validated request for embeddings."""

    model: ModelSpec
    texts: Sequence[str]
    tokens: int
    dimensions: int
    encoding: str

    def body(self) -> dict[str, Any]:
        """The answer; takes long for many texts."""
        vectors = _vectors(self.texts, self.dimensions, self.encoding)
        return {
            "object": "list",
            "data": [
                {"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(vectors)
            ],
            "model": self.model.name,
            "usage": {"prompt_tokens": self.tokens, "total_tokens": self.tokens},
        }


def read_embeddings(body: Mapping[str, Any], settings: SimulatorSettings) -> EmbeddingJob:
    """The texts of an embeddings request; raises `ProviderError` as the provider would answer."""
    model = resolve_or_404(body, settings)
    if not model.dimensions:
        raise ProviderError(403, "invalid_request_error", f"{model.name} is not an embedding model.")
    texts = _inputs(body)
    counts = [count_tokens(text) for text in texts]
    if max(counts) > model.context_window:
        raise _invalid(
            f"This model's maximum context length is {model.context_window} tokens, however you requested "
            f"{max(counts)} tokens. Please reduce your prompt.",
            "input",
        )
    if sum(counts) > _MOST_TOKENS:
        raise _invalid(f"Requested {sum(counts)} tokens, max {_MOST_TOKENS} tokens per request.", "input")
    return EmbeddingJob(
        model=model,
        texts=texts,
        tokens=sum(counts),
        dimensions=_dimensions(body, model),
        encoding=str(body.get("encoding_format", "float")),
    )
