"""From settings to the address of the records."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING
from urllib.parse import unquote

import sqlalchemy as sa

from guidance_agent.errors import ConfigurationError, MissingExtraError

if TYPE_CHECKING:
    from guidance_agent.settings import Settings

__all__ = ["database_url", "shown_url"]

_DRIVERS = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg"}
_SECRET_OPTIONS = ("sslpassword",)


def database_url(settings: Settings) -> sa.URL:
    """Return the SQLAlchemy URL of the records; raise `ConfigurationError` when it is not one that can serve."""
    url = _url(settings)
    if any("\0" in str(part) for part in (*url, *url.query.values()) if part is not None):
        raise ConfigurationError("The name of the database holds a NUL character. Set data_dir or database_url anew.")
    if url.get_backend_name() == "sqlite" and url.database in (None, "", ":memory:"):
        raise ConfigurationError(
            "A database in memory would be gone with the process, and with it the record. Use sqlite:///FILE."
        )
    if url.get_backend_name() == "postgresql" and importlib.util.find_spec("psycopg") is None:
        raise MissingExtraError("PostgreSQL needs psycopg. Install it with: pip install 'guidance-agent[postgres]'")
    return url


def shown_url(url: sa.URL) -> str:
    """Return the URL as a person may see it, without anything secret."""
    hidden = {name: "***" for name in _SECRET_OPTIONS if name in url.query}
    plain = url.set(drivername=url.get_backend_name()).update_query_dict(hidden)
    return plain.render_as_string(hide_password=True).replace("%2A%2A%2A", "***").replace("%2F", "/")


def _url(settings: Settings) -> sa.URL:
    if settings.database_url is None:
        return sa.URL.create("sqlite", database=str(settings.data_dir / "guidance.db"))
    try:
        url = sa.make_url(settings.database_url)
    except (sa.exc.ArgumentError, ValueError) as error:
        raise ConfigurationError(
            "database_url is not a database URL. Use sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME."
        ) from error
    backend = url.get_backend_name()
    if backend not in _DRIVERS:
        raise ConfigurationError(f"database_url uses {backend!r}. Supported are sqlite and postgresql.")
    url = url.set(drivername=_DRIVERS[backend])
    if url.host is not None and "%" in url.host:
        # PostgreSQL's own URLs may write the folder of a socket in the place of the host.
        url = url.set(host=unquote(url.host))
    if isinstance(password := url.query.get("password"), str):
        # Where it is hidden when the URL is shown.
        url = url.difference_update_query(["password"]).set(password=password)
    return url
