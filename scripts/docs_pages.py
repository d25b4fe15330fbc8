"""Bring into the documentation site what does not stand in `docs/`: README, the pages of `specs/`, the API reference.

A hook of MkDocs. The API reference has a page for each module that is meant to be imported by others: those of the
packages below that name what they offer in `__all__`.
"""

from __future__ import annotations

import ast
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src"
PUBLIC = (
    "guidance_agent",
    "guidance_agent.advisor.agent",
    "guidance_agent.advisor.events",
    "guidance_agent.advisor.prompts",
    "guidance_agent.calculators",
    "guidance_agent.compliance.audit",
    "guidance_agent.compliance.validator",
    "guidance_agent.compliance.verdict",
    "guidance_agent.core.batch_jobs",
    "guidance_agent.core.batch_processing",
    "guidance_agent.core.batch_work",
    "guidance_agent.core.database",
    "guidance_agent.core.memory",
    "guidance_agent.core.types",
    "guidance_agent.errors",
    "guidance_agent.learning.learner",
    "guidance_agent.learning.reflection",
    "guidance_agent.learning.rules",
    "guidance_agent.llm",
    "guidance_agent.llm.batch_request",
    "guidance_agent.llm.gateway",
    "guidance_agent.llm.messages",
    "guidance_agent.llm.structured",
    "guidance_agent.llm.tools",
    "guidance_agent.retrieval.embeddings",
    "guidance_agent.runtime",
    "guidance_agent.runtime_work",
    "guidance_agent.settings",
    "guidance_agent.testing",
)
_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?!https?:|#|mailto:)([^)#\s]+)(#[^)\s]*)?\)")
_PICTURE = re.compile(r"!\[([^\]]*)\]\(docs/([^)\s]+)\)")
_ORIGINS = {"index.md": "README.md", "changelog.md": "CHANGELOG.md"}
"""Pages that have another place in the repository than on the site."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made here."""
    _add(files, config, "index.md", (ROOT / "README.md").read_text(encoding="utf-8"))
    _add(files, config, "changelog.md", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))
    for page in sorted((ROOT / "specs").glob("*.md")):
        _add(files, config, f"specs/{page.name}", page.read_text(encoding="utf-8"))
    for module in PUBLIC:
        _add(files, config, f"api/{module}.md", f"# {module}\n\n::: {module}\n{_members(module)}")
    listed = "\n".join(f"- [`{module}`]({module}.md): {_summary(module)}" for module in PUBLIC)
    _add(files, config, "api/README.md", f"# API reference\n\n{listed}\n")
    return files


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Lay out the navigation."""
    specs = sorted(page.name for page in (ROOT / "specs").glob("*.md") if page.name != "README.md")
    guides = sorted(page.name for page in (ROOT / "docs" / "guides").glob("*.md") if page.name != "README.md")
    config.nav = [
        {"Start": "index.md"},
        {"Guides": ["guides/README.md", *(f"guides/{name}" for name in guides)]},
        {"How it works": ["specs/README.md", *(f"specs/{name}" for name in specs)]},
        {"API reference": ["api/README.md", *({module: f"api/{module}.md"} for module in PUBLIC)]},
        {"Changes": "changelog.md"},
    ]
    return config


def on_page_markdown(markdown: str, page: Any, config: MkDocsConfig, files: Files) -> str:
    """Let links to files of the repository, which have no page, be plain names."""
    origin = page.file.src_uri
    if origin.startswith("api/"):
        return markdown
    markdown = _PICTURE.sub(r"![\1](\2)", markdown)
    return _LINK.sub(lambda found: _linked(found, origin, files), markdown)


def _linked(found: re.Match[str], origin: str, files: Files) -> str:
    """Return a link to a page of the site, or the words alone where the repository has no page for it."""
    words, target, anchor = found[1], found[2].rstrip("/"), found[3] or ""
    path = posixpath.normpath(posixpath.join(posixpath.dirname(_ORIGINS.get(origin, origin)), target))
    page = next((uri for uri, source in _ORIGINS.items() if source == path), path.removeprefix("docs/"))
    if path == "specs":
        page = "specs/README.md"
    if files.get_file_from_path(page) is None:
        return words
    return f"[{words}]({posixpath.relpath(page, posixpath.dirname(origin) or '.')}{anchor})"


def _add(files: Files, config: MkDocsConfig, uri: str, text: str) -> None:
    files.append(File.generated(config, uri, content=text))


def _members(module: str) -> str:
    names = _exported(module)
    listed = "".join(f"        - {name}\n" for name in names)
    return f"    options:\n      members:\n{listed}" if names else ""


def _tree(module: str) -> ast.Module:
    path = SOURCE.joinpath(*module.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(file.read_text(encoding="utf-8"))


def _exported(module: str) -> list[str]:
    for node in _tree(module).body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets):
            return list(ast.literal_eval(node.value))
    return []


def _summary(module: str) -> str:
    return (ast.get_docstring(_tree(module)) or "").split("\n\n")[0].replace("\n", " ")
