"""LiteLLM's bundled map of models and prices, read without importing LiteLLM.

LiteLLM takes seconds to import, its map is one JSON file of 3 MB. The file is walked member by member and only the
positions are kept: a record is decoded when it is asked for, memory stays at the size of the text, and in a thread the
walk gives way to the event loop between members, which one `json.loads` of the whole would not.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import logging
import re
import threading
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

__all__ = ["PriceMap", "bundled_price_map"]

_MAP_FILE = "model_prices_and_context_window_backup.json"
_PROVIDERS_FILE = "provider_endpoints_support_backup.json"
_SAMPLE = "sample_spec"

_logger = logging.getLogger(__name__)
_gap = re.compile(r"[\s,:]*")


class PriceMap:
    """The map's records by model name.

    Reading is lazy, happens once, and blocks for some tens of milliseconds: on an event loop call `warm` in a thread
    first. A folder without the file gives an empty map and one warning in the log.
    """

    def __init__(self, folder: Path | None, version: str) -> None:
        self.version = version
        self._folder = folder
        self._text = ""
        self._starts: dict[str, int] | None = None
        self._providers: frozenset[str] | None = None
        self._decoded: dict[str, Mapping[str, Any]] = {}
        self._lock = threading.Lock()  # one reader of the file; what it filled is never changed again

    @property
    def is_warm(self) -> bool:
        return self._starts is not None

    def warm(self) -> None:
        """Read the file, if nobody has yet."""
        self._index()

    def record(self, name: str) -> Mapping[str, Any] | None:
        """Return the map's record of `name`, spelled as in the map, or None."""
        known = self._decoded.get(name)
        if known is not None:
            return known
        start = self._index().get(name)
        if start is None:
            return None
        value, _ = json.JSONDecoder().raw_decode(self._text, start)
        if not isinstance(value, dict):
            return None
        # A process asks for the same few models, at the end of every call of theirs.
        return self._decoded.setdefault(name, MappingProxyType(value))

    def names(self) -> tuple[str, ...]:
        return tuple(self._index())

    def providers(self) -> frozenset[str]:
        """Return the provider prefixes that LiteLLM knows."""
        if self._providers is None:
            listed = _read_providers(self._folder)
            self._providers = listed | {name.split("/", 1)[0] for name in self.names() if "/" in name}
        return self._providers

    def _index(self) -> dict[str, int]:
        if self._starts is None:
            with self._lock:
                if self._starts is None:
                    self._text, starts = _read_map(self._folder)
                    self._starts = starts
        return self._starts


@lru_cache(maxsize=1)
def bundled_price_map() -> PriceMap:
    """Return the map of the installed LiteLLM; the same one for the whole process."""
    # find_spec of a top-level name does not import it; importlib.resources would.
    spec = importlib.util.find_spec("litellm")
    if spec is None or not spec.submodule_search_locations:
        return PriceMap(None, "not installed")
    try:
        version = importlib.metadata.version("litellm")
    except importlib.metadata.PackageNotFoundError:
        version = "of unknown version"
    return PriceMap(Path(spec.submodule_search_locations[0]), version)


def _read_map(folder: Path | None) -> tuple[str, dict[str, int]]:
    try:
        if folder is None:
            raise FileNotFoundError("LiteLLM is not installed")
        text = (folder / _MAP_FILE).read_text(encoding="utf-8")
        starts = _member_starts(text)
    except (OSError, ValueError) as error:
        _logger.warning("No prices: the price map of LiteLLM cannot be read (%s). Costs will be unknown.", error)
        return "", {}
    starts.pop(_SAMPLE, None)
    return text, starts


def _member_starts(text: str) -> dict[str, int]:
    """Return where the value of each member of the JSON object `text` starts; of equal names the last, as in JSON."""
    starts: dict[str, int] = {}
    decode = json.JSONDecoder().raw_decode
    position = _skip(text, text.index("{") + 1)
    while text[position : position + 1] == '"':
        name, position = decode(text, position)
        start = _skip(text, position)
        starts[name] = start
        _, position = decode(text, start)
        position = _skip(text, position)
    if text[position : position + 1] != "}":
        raise ValueError(f"the JSON object is not closed at character {position}")
    return starts


def _skip(text: str, position: int) -> int:
    gap = _gap.match(text, position)
    return gap.end() if gap else position


def _read_providers(folder: Path | None) -> frozenset[str]:
    if folder is None:
        return frozenset()
    try:
        listed = json.loads((folder / _PROVIDERS_FILE).read_text(encoding="utf-8"))
        return frozenset(name.split("/", 1)[0] for name in listed["providers"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        _logger.warning("The provider list of LiteLLM cannot be read (%s); only its price map is used.", error)
        return frozenset()
