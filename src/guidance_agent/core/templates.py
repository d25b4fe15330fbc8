"""The templates of the parts of this package: strict, and the same bytes on every machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["templates_of"]


def templates_of(package: str, *, escape: bool = False) -> Environment:
    """Return what renders the templates of a package; a value that is missing is an error.

    Args:
        package: The one that has the folder `templates`.
        escape: Whether values are escaped, as a page needs it. A prompt does not: what is untrusted stands between
            marks of its own there, or is filtered.
    """
    # Not loaded by the import of the package.
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader(package),
        auto_reload=False,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        autoescape=escape,  # noqa: S701  a prompt is no page
    )
