"""Templates of this package, rendered: prompts as they are, pages with everything escaped."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["render_page", "render_prompt"]


def render_prompt(template: str, **values: Any) -> str:
    """Return a prompt, ending in one line break. What is untrusted must stand between marks of its own."""
    return _environment(escaped=False).get_template(template).render(**values).strip() + "\n"


def render_page(template: str, **values: Any) -> str:
    """Return a page of HTML in which no value can be markup."""
    return _environment(escaped=True).get_template(template).render(**values)


@functools.cache
def _environment(*, escaped: bool) -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("guidance_agent.learning"),
        auto_reload=False,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        autoescape=escaped,  # noqa: S701  a prompt is no page; what is untrusted stands between marks of its own
    )
