"""The Phoenix server that runs on this machine, as its launcher left word of it in the data folder.

Reading that word is one small file and a look at the process: no network, nothing heavy to import. What is read holds
ports and no address, so that spans go to this machine whatever somebody wrote into the file.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from guidance_agent.phoenix.pages import page_of
from guidance_agent.phoenix.processes import process_mark

__all__ = ["LocalPhoenix", "local_endpoint", "local_phoenix", "phoenix_folder", "write_word", "written_word"]

_FILE = "server.json"
_HOST = "127.0.0.1"
_LONGEST = 10_000


class _Word(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    pid: int = Field(gt=1)
    mark: str = Field(min_length=1)
    port: int = Field(ge=1, le=65_535)
    grpc_port: int = Field(ge=1, le=65_535)
    version: str
    started_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalPhoenix:
    """A Phoenix server on this machine. `mark` tells its process from a later one with the same number."""

    pid: int
    mark: str
    port: int
    grpc_port: int
    version: str
    started_at: datetime

    @property
    def endpoint(self) -> str:
        """Address without a path, such as `http://127.0.0.1:6006`."""
        return f"http://{_HOST}:{self.port}"

    @property
    def traces_endpoint(self) -> str:
        """Where spans go over OTLP/HTTP."""
        return f"{self.endpoint}/v1/traces"

    @property
    def grpc_endpoint(self) -> str:
        """Where spans go over OTLP/gRPC, such as `127.0.0.1:4317`."""
        return f"{_HOST}:{self.grpc_port}"

    def alive(self) -> bool:
        """Return whether its process still runs."""
        return process_mark(self.pid) == self.mark

    def project_url(self, project: str) -> str:
        """Return the page of a project, by its name."""
        return page_of(self.endpoint, "projects", project)

    def trace_url(self, trace_id: str) -> str:
        """Return the page of a trace, by its id in hexadecimal digits."""
        return page_of(self.endpoint, "traces", trace_id)

    def span_url(self, span_id: str) -> str:
        """Return the page of a span, by its id in hexadecimal digits."""
        return page_of(self.endpoint, "spans", span_id)

    def session_url(self, session_id: str) -> str:
        """Return the page of a session, by the id that its spans carry."""
        return page_of(self.endpoint, "sessions", session_id)


def phoenix_folder(data_folder: Path) -> Path:
    """Return the folder that holds everything of the local Phoenix: environment, database, log."""
    return data_folder.absolute() / "phoenix"


def local_phoenix(data_folder: Path) -> LocalPhoenix | None:
    """Return the server that was started for this data folder; None when none runs.

    It says that the process runs, not that it answers: it may hang, or just be ending.
    """
    word = written_word(data_folder)
    return word if word is not None and word.alive() else None


def local_endpoint(data_folder: Path) -> str | None:
    """Return the address of the server that was started for this data folder; None when none runs."""
    server = local_phoenix(data_folder)
    return None if server is None else server.endpoint


def written_word(data_folder: Path) -> LocalPhoenix | None:
    """Return what the last start wrote, whether or not that server still runs; None where it cannot be read."""
    try:
        with (phoenix_folder(data_folder) / _FILE).open("rb") as file:
            word = _Word.model_validate_json(file.read(_LONGEST))
    except (OSError, ValueError):
        # A file that nobody can read names no server; the next start writes another.
        return None
    return LocalPhoenix(**dict(word))


def write_word(data_folder: Path, server: LocalPhoenix | None) -> None:
    """Leave word of a server, or take it back with None; the file is whole or as it was.

    Raises:
        OSError: when the folder cannot be written.
    """
    folder = phoenix_folder(data_folder)
    if server is None:
        (folder / _FILE).unlink(missing_ok=True)
        return
    word = _Word(**{name: getattr(server, name) for name in _Word.model_fields})
    handle, name = tempfile.mkstemp(dir=folder, prefix=f".{_FILE}.")
    try:
        with open(handle, "w", encoding="utf-8") as file:
            file.write(word.model_dump_json())
        os.replace(name, folder / _FILE)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise
