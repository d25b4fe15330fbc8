"""How the log is told of a fault of tracing: where it is, and nothing of what was traced."""

from __future__ import annotations

import logging
import traceback

__all__ = ["tell_fault"]

_logger = logging.getLogger("guidance_agent.tracing")


def tell_fault(error: Exception) -> None:
    """Tell the log the kind and the place of a fault. Its message may hold a customer's words, and is left out."""
    frames = traceback.extract_tb(error.__traceback__, limit=-1)
    place = f"{frames[0].filename}:{frames[0].lineno}" if frames else "an unknown place"
    _logger.warning(
        "Tracing has a fault, and spans may be missing; this is told once. %s at %s", type(error).__name__, place
    )
