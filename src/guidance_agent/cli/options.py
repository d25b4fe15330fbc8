"""Options that several commands share, and the settings that they make."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from guidance_agent.settings import Settings

__all__ = [
    "MOST",
    "AllEvents",
    "AsJson",
    "CustomerFile",
    "DataDir",
    "Model",
    "NoReasoning",
    "Persona",
    "Quiet",
    "ReasoningModel",
    "ResultAsJson",
    "ShowReasoning",
    "load_settings",
]

MOST = 1_000_000
"""What may be asked for at most where a number is given: far below what SQLite can count to."""

CustomerFile = Annotated[
    Path | None,
    typer.Option("--customer", "-c", metavar="FILE", help="Customer profile, as JSON or YAML."),
]
Persona = Annotated[
    str | None,
    typer.Option("--persona", "-p", metavar="NAME", help="Invented customer to be (janet, if nothing else is said)."),
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        metavar="MODEL",
        help="Model that answers, such as anthropic/claude-sonnet-5-5 or ollama/llama3.2; otherwise the keys that are "
        "set decide.",
    ),
]
ReasoningModel = Annotated[
    str | None,
    typer.Option(
        "--reasoning-model",
        metavar="MODEL",
        help="Fast model for the private notes before an answer.",
    ),
]
NoReasoning = Annotated[bool, typer.Option("--no-reasoning", help="Answer without private notes first.")]
AsJson = Annotated[bool, typer.Option("--json", help="Write one JSON object per event and line, and nothing else.")]
ResultAsJson = Annotated[bool, typer.Option("--json", help="Write the result as one JSON object.")]
AllEvents = Annotated[bool, typer.Option("--all-events", help="With --json: also the events that no customer may see.")]
ShowReasoning = Annotated[bool, typer.Option("--show-reasoning", help="Show the private notes, on standard error.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No heading, figures or hints.")]
DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        metavar="DIR",
        help="Folder for the records; otherwise GUIDANCE_DATA_DIR, or ~/.local/share/guidance-agent.",
    ),
]


def load_settings(
    *, data_dir: Path | None = None, model: str | None = None, reasoning_model: str | None = None
) -> Settings:
    """Read the settings; what is given here wins over environment and file.

    Raises:
        ConfigurationError: when they are not valid.
    """
    from guidance_agent.settings import Settings

    if data_dir is not None:
        # The folder may hold the config file, so it must be known before the file is looked for.
        os.environ["GUIDANCE_DATA_DIR"] = str(data_dir)
    given = {"model": model, "reasoning_model": reasoning_model}
    return Settings.load(**{name: value for name, value in given.items() if value is not None})
