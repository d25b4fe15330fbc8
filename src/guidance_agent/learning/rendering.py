"""Prompts of this package, rendered from its templates."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from guidance_agent.core.templates import templates_of

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["render_prompt"]


def render_prompt(template: str, **values: Any) -> str:
    """Return a prompt, ending in one line break. What is untrusted must stand between marks of its own."""
    return _environment().get_template(template).render(**values).strip() + "\n"


@functools.cache
def _environment() -> Environment:
    return templates_of("guidance_agent.learning")
