"""Prompts of this package, rendered from its templates."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["render_prompt"]


def render_prompt(template: str, **values: Any) -> str:
    """Return a prompt, ending in one line break. What is untrusted must stand between marks of its own."""
    return _environment().get_template(template).render(**values).strip() + "\n"


@functools.cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("guidance_agent.learning"),
        auto_reload=False,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        autoescape=False,  # noqa: S701  the output is a prompt, and no page
    )
