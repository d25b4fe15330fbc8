"""Reads a knowledge base from YAML files and answers what holds on a given day.

A directory holds `facts/*.yaml` (at least one fact), and optionally `figures.yaml` and `unknowns.yaml`; every file
is a list of entries. Anything wrong in any of them is an error: a fact that is silently missing is worse than a
service that does not start.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from guidance_agent.errors import KnowledgeError
from guidance_agent.knowledge.records import DatedFact, Fact, Figure, Unknown
from guidance_agent.knowledge.tax_years import tax_year

__all__ = ["Knowledge", "load_knowledge", "tax_year"]

# libyaml reads the same language about ten times faster; not every build of PyYAML carries it.
_YamlLoader: type[yaml.CSafeLoader | yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_Entry = TypeVar("_Entry", Fact, Figure, Unknown)


@dataclass(frozen=True, slots=True)
class Knowledge:
    """A loaded knowledge base.

    Attributes:
        facts: All facts by id, expired and upcoming ones included.
        figures: All figures by id, for every period.
        unknowns: What must be answered with "not known" and the place to check.
        version: Hash of the content, equal wherever and in whatever order the same entries are stored.
    """

    facts: tuple[Fact, ...]
    figures: tuple[Figure, ...]
    unknowns: tuple[Unknown, ...]
    version: str
    _by_id: Mapping[str, Fact] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_by_id", {fact.id: fact for fact in self.facts})

    def valid_on(self, day: date, *, include_upcoming: bool = True) -> tuple[DatedFact, ...]:
        """Facts in force on `day`, and those that start later unless `include_upcoming` is false.

        An expired fact is never among them. An upcoming fact must be shown with its start date.
        """
        found = []
        for fact in self.facts:
            if fact.holds_on(day):
                found.append(DatedFact(fact, "current"))
            elif include_upcoming and fact.effective_from > day:
                found.append(DatedFact(fact, "upcoming"))
        return tuple(found)

    def figures_on(self, day: date) -> tuple[Figure, ...]:
        """Figures that apply on `day`."""
        return tuple(figure for figure in self.figures if figure.holds_on(day))

    def get(self, fact_id: str) -> Fact:
        """The fact with this id, whatever its dates.

        Raises:
            KnowledgeError: There is no such fact.
        """
        try:
            return self._by_id[fact_id]
        except KeyError:
            msg = f"No fact has the id {fact_id!r}. The ids are those of `Knowledge.facts`."
            raise KnowledgeError(msg) from None


def load_knowledge(directory: Path | None = None) -> Knowledge:
    """Load a knowledge base, by default the one in the package; a directory is read once per process.

    Reading blocks for some milliseconds, so a server calls this before it serves.

    Raises:
        KnowledgeError: A file cannot be read, an entry lacks a field or has a wrong one, an id occurs twice, or a
            figure names a fact that does not exist. The message names file, entry and field.
    """
    return _load((directory or Path(__file__).parent).resolve())


@lru_cache(maxsize=8)
def _load(directory: Path) -> Knowledge:
    facts = _read_all(_fact_files(directory), Fact)
    if not facts:
        msg = f"Knowledge directory {str(directory)!r} holds no facts. Add entries to 'facts/*.yaml'."
        raise KnowledgeError(msg)
    figures = _read_all(_optional(directory / "figures.yaml"), Figure)
    unknowns = _read_all(_optional(directory / "unknowns.yaml"), Unknown)
    known = {fact.id for fact in facts}
    for figure in figures:
        if figure.fact not in known:
            raise _wrong(directory / "figures.yaml", figure.id, "fact", f"no fact has the id {figure.fact!r}")
    return Knowledge(facts, figures, unknowns, _version_of(facts, figures, unknowns))


def _fact_files(directory: Path) -> list[Path]:
    try:
        files = sorted(path for path in (directory / "facts").iterdir() if path.suffix in {".yaml", ".yml"})
    except OSError as error:
        msg = (
            f"Knowledge directory {str(directory)!r} has no readable folder 'facts' ({error.strerror}). "
            "Pass a directory with 'facts/*.yaml'."
        )
        raise KnowledgeError(msg) from error
    return files


def _optional(path: Path) -> list[Path]:
    return [path] if path.exists() else []


def _read_all(paths: Iterable[Path], model: type[_Entry]) -> tuple[_Entry, ...]:
    read: dict[str, tuple[Path, _Entry]] = {}
    for path in paths:
        for position, raw in enumerate(_entries(path), start=1):
            entry = _validated(path, position, raw, model)
            if entry.id in read:
                raise _wrong(path, entry.id, "id", f"already used in {read[entry.id][0].name!r}")
            read[entry.id] = (path, entry)
    return tuple(read[key][1] for key in sorted(read))


def _entries(path: Path) -> list[object]:
    try:
        loader = _YamlLoader(path.read_text(encoding="utf-8"))
        try:
            node = loader.get_single_node()
            _refuse_repeated_keys(node)
            content = loader.construct_document(node) if node is not None else []
        finally:
            loader.dispose()
    except OSError as error:
        msg = f"Knowledge file {str(path)!r} cannot be read ({error.strerror}). Check the path and its rights."
        raise KnowledgeError(msg) from error
    except (yaml.YAMLError, ValueError) as error:
        msg = f"Knowledge file {path.name!r} is not valid YAML: {error}. Correct {str(path)!r}."
        raise KnowledgeError(msg) from error
    if not isinstance(content, list):
        msg = f"Knowledge file {path.name!r} must be a list of entries, not {type(content).__name__!r}."
        raise KnowledgeError(msg)
    return content


def _refuse_repeated_keys(node: yaml.Node | None) -> None:
    """YAML keeps the last of two equal keys, which would drop a date or a source without a word."""
    for mapping in _mappings(node):
        seen = set()
        for key, _ in mapping.value:
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"key {key.value!r} occurs twice", problem_mark=key.start_mark)
            seen.add(key.value)


def _mappings(node: yaml.Node | None) -> Iterator[yaml.MappingNode]:
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _mappings(item)
    elif isinstance(node, yaml.MappingNode):
        yield node


def _validated(path: Path, position: int, raw: object, model: type[_Entry]) -> _Entry:
    name = raw.get("id", f"number {position}") if isinstance(raw, dict) else f"number {position}"
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        problem = first["msg"].removeprefix("Value error, ")
        where = ".".join(str(part) for part in first["loc"]) or "effective_from, valid_until"
        if first["loc"] and first["type"] != "missing":
            problem = f"{problem}, got {first['input']!r}"
        raise _wrong(path, name, where, problem) from error


def _wrong(path: Path, entry: object, where: str, problem: str) -> KnowledgeError:
    return KnowledgeError(
        f"Knowledge file {path.name!r}, entry {entry!r}, field {where!r}: {problem}. Correct {str(path)!r}."
    )


def _version_of(*parts: Iterable[BaseModel]) -> str:
    content = [[entry.model_dump(mode="json") for entry in part] for part in parts]
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
