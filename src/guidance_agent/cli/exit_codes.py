"""What the exit status of a command means.

| code | meaning |
|---|---|
| 0 | done |
| 1 | a defect of the program; of a batch job: something needs a person |
| 2 | the command line, the question or the customer cannot be used; Phoenix is not installed |
| 3 | settings, keys or models do not work together; Phoenix does not run |
| 4 | a provider, or the way to it, failed |
| 5 | the records, or a file, cannot be read or written |
| 75 | a batch job cannot run now: try later |
| 130 | interrupted by Ctrl-C or SIGTERM |
"""

from __future__ import annotations

from enum import IntEnum

from guidance_agent.errors import (
    ConfigurationError,
    FileWriteError,
    GuidanceAgentError,
    InputError,
    JobLockedError,
    ModelError,
    PhoenixError,
    PhoenixNotInstalledError,
    StorageError,
)

__all__ = ["ExitCode", "exit_code_of"]


class ExitCode(IntEnum):
    """Exit status of every command."""

    DONE = 0
    DEFECT = 1
    NEEDS_PERSON = 1
    USAGE = 2
    CONFIGURATION = 3
    MODEL = 4
    STORAGE = 5
    TRY_LATER = 75
    INTERRUPTED = 130


_CODES: tuple[tuple[type[GuidanceAgentError], ExitCode], ...] = (
    (InputError, ExitCode.USAGE),
    (ConfigurationError, ExitCode.CONFIGURATION),
    (ModelError, ExitCode.MODEL),
    (StorageError, ExitCode.STORAGE),
    (FileWriteError, ExitCode.STORAGE),
    (PhoenixNotInstalledError, ExitCode.USAGE),
    (PhoenixError, ExitCode.CONFIGURATION),
    (JobLockedError, ExitCode.TRY_LATER),
)


def exit_code_of(error: GuidanceAgentError) -> ExitCode:
    """Return the exit status that `error` ends a command with."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), ExitCode.DEFECT)
