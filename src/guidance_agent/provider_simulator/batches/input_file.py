"""Checks the lines of an OpenAI batch's input file, and words what is wrong with them as the provider does."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from guidance_agent.provider_simulator.models import resolve_model
from guidance_agent.provider_simulator.settings import SimulatorSettings

__all__ = ["ENDPOINTS", "MOST_BYTES", "MOST_REQUESTS", "CheckedLine", "check_line", "file_error", "line_error"]

ENDPOINTS = ("/v1/chat/completions", "/v1/embeddings")
"""The endpoints that the simulator answers in batches."""

MOST_REQUESTS = 50_000
MOST_BYTES = 200 * 1024 * 1024

BatchError = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedLine:
    """What a line says; with `errors` it is not to be worked off."""

    errors: tuple[BatchError, ...]
    custom_id: str = ""
    model: str = ""


def line_error(code: str, message: str, line: int, param: str | None = None) -> BatchError:
    return {"code": code, "message": message, "param": param, "line": line}


def file_error(code: str | None, message: str) -> BatchError:
    """What is wrong with the file or the batch as a whole."""
    return {"code": code, "message": message, "param": None, "line": None}


def check_line(raw: bytes, line: int, *, endpoint: str, model: str | None, settings: SimulatorSettings) -> CheckedLine:
    """Check one line; `model` is that of the lines before it.

    Whether a custom id has been used before is for the caller to know.
    """
    try:
        entry = json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError):
        entry = None
    if not isinstance(entry, dict):
        message = "This line is not parseable as valid JSON."
        return CheckedLine(errors=(line_error("invalid_json_line", message, line),))
    errors = []
    for name in ("custom_id", "method", "url", "body"):
        if not entry.get(name):
            message = f"Missing required parameter: '{name}'."
            errors.append(line_error("missing_required_parameter", message, line, name))
        elif not _has_its_type(name, entry[name]):
            expected = "an object" if name == "body" else "a string"
            message = f"Invalid type for '{name}': expected {expected}."
            errors.append(line_error("invalid_type", message, line, name))
    if errors:
        return CheckedLine(errors=tuple(errors))
    if entry["method"] != "POST":
        message = f"Invalid value: '{entry['method']}'. Supported values are: 'POST'."
        errors.append(line_error("invalid_method", message, line, "method"))
    if entry["url"] != endpoint:
        message = "The URL provided for this request does not match the batch endpoint."
        errors.append(line_error("invalid_url", message, line, "url"))
    errors.extend(_body_errors(entry["body"], line, model, settings))
    name = entry["body"].get("model")
    return CheckedLine(errors=tuple(errors), custom_id=entry["custom_id"], model=name if isinstance(name, str) else "")


def _has_its_type(name: str, value: Any) -> bool:
    if name == "body":
        return isinstance(value, dict)
    # Half of a surrogate pair is no character, and cannot be kept.
    return isinstance(value, str) and not any("\ud800" <= character <= "\udfff" for character in value)


def _body_errors(
    body: Mapping[str, Any], line: int, model: str | None, settings: SimulatorSettings
) -> list[BatchError]:
    if body.get("stream"):
        message = "Chat Completions: Streaming is not supported in the Batch API."
        return [line_error("streaming_unsupported", message, line, "body.stream")]
    name = body.get("model")
    if not isinstance(name, str) or not name:
        return [line_error("missing_required_parameter", "Missing required parameter: 'model'.", line, "body.model")]
    if resolve_model(name, "openai", settings) is None:
        message = f"The provided model '{name}' is not supported by the Batch API."
        return [line_error("model_not_found", message, line, "body.model")]
    if model is not None and name != model:
        message = (
            f"The model '{name}' for this request does not match the rest of the batch. Each batch must contain "
            "requests for a single model."
        )
        return [line_error("mismatched_model", message, line, "body.model")]
    return []
