"""The lists of words that say how a figure is given, read from the package's file once."""

from __future__ import annotations

import re
from functools import lru_cache
from importlib import resources

import yaml
from pydantic import TypeAdapter, ValidationError

from guidance_agent.errors import ConfigurationError

__all__ = ["phrases", "word_list"]


@lru_cache(maxsize=1)
def _lists() -> dict[str, list[str]]:
    file = resources.files("guidance_agent.compliance") / "rules" / "figures" / "wording.yaml"
    try:
        return TypeAdapter(dict[str, list[str]]).validate_python(yaml.safe_load(file.read_text(encoding="utf-8")))
    except ValidationError as error:
        raise ConfigurationError(f"The file 'wording.yaml' of figures is not valid: {error}. Correct it.") from error


def word_list(name: str) -> frozenset[str]:
    """Return the words of a list."""
    return frozenset(_lists()[name])


def phrases(name: str, then: str = "") -> re.Pattern[str]:
    """Return what finds any phrase of a list, where `then` holds after it, in words that are apart by a space."""
    return re.compile(rf"(?<!\S)(?:{'|'.join(_lists()[name])}){then}(?!\S)")
