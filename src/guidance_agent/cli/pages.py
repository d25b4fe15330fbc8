"""Reports as HTML files, rendered from the templates of this package."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from guidance_agent.cli.audit_words import kappa_words, percent
from guidance_agent.cli.terminal_text import plain
from guidance_agent.core.templates import templates_of

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["marked", "render_page"]


def render_page(template: str, **values: Any) -> str:
    """Return the text of a page; what is not `marked` is escaped."""
    return _environment().get_template(template).render(**values)


def marked(svg: str) -> Any:
    """Return a chart as what may stand in a page as it is."""
    from markupsafe import Markup

    # Its texts are escaped where it is drawn.
    return Markup(svg)  # noqa: S704


@functools.cache
def _environment() -> Environment:
    environment = templates_of("guidance_agent.cli", escape=True)
    environment.filters |= {"plain": plain, "percent": percent, "kappa": kappa_words}
    return environment
