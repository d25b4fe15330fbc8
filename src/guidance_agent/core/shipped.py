"""Reads the YAML files that come with the package, quickly and as what they are said to be."""

from __future__ import annotations

from importlib.resources.abc import Traversable
from typing import TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError

from guidance_agent.errors import KnowledgeError

__all__ = ["read_shipped"]

_Content = TypeVar("_Content")
_Loader: type[yaml.CSafeLoader | yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_shipped(file: Traversable, shape: type[_Content]) -> _Content:
    """Return the content of a file.

    Raises:
        KnowledgeError: when it is missing or not what `shape` describes.
    """
    try:
        content = yaml.load(file.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506
        return TypeAdapter(shape).validate_python(content)
    except (OSError, yaml.YAMLError, ValidationError) as error:
        raise KnowledgeError(f"The file {str(file)!r} cannot be used: {error}. Install the package again.") from error
