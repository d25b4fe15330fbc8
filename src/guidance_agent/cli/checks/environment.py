"""Checks of what the program runs in: Python, installed packages, the data folder and its disk."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import site
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from guidance_agent.cli.checks.result import Check, failed, ok, warn
from guidance_agent.cli.exit_codes import ExitCode

__all__ = ["check_data_folder", "check_litellm", "check_python", "check_start_up_files", "start_up_files"]

_MALICIOUS_LITELLM = ("1.82.7", "1.82.8")
"""Releases that carried a credential stealer (OSV MAL-2026-2144)."""

# Files that packaging tools and coverage are known to leave; every other one that runs code at each start is reported.
_KNOWN_START_UP_FILES = re.compile(
    r"(_?_editable_.*|distutils-precedence|_virtualenv|a1_coverage|easy-install|pywin32|.*-nspkg|sitecustomize-.*)\.pth"
)
_RUNS_CODE = re.compile(r"^import[ \t]", re.MULTILINE)

_GIGABYTE = 1_000_000_000
_LITTLE_SPACE = _GIGABYTE
_NO_SPACE = _GIGABYTE // 10


def check_python() -> Check:
    """Check the version of Python."""
    version = sys.version.split()[0]
    if (3, 11) <= sys.version_info[:2] <= (3, 13):
        return ok("Python", f"{version} ({sys.executable})")
    return failed("Python", f"Version {version} is not supported.", "Install Python 3.11, 3.12 or 3.13.")


def check_litellm() -> Check:
    """Check that LiteLLM is the version that the package was tested with."""
    try:
        found = importlib.metadata.version("litellm")
    except importlib.metadata.PackageNotFoundError:
        return warn(
            "LiteLLM",
            "Not installed: providers without a native transport cannot be used, and prices are unknown.",
            "Run `pip install guidance-agent` again.",
        )
    if found in _MALICIOUS_LITELLM:
        return failed(
            "LiteLLM",
            f"Version {found} is a malicious release that steals credentials (MAL-2026-2144).",
            "Remove this environment, and replace every key that was set while it was in use.",
        )
    wanted = _pinned("litellm")
    if wanted is not None and found != wanted:
        return warn(
            "LiteLLM",
            f"Version {found} is installed; {wanted} was tested.",
            f"Run `pip install litellm=={wanted}`.",
        )
    return ok("LiteLLM", f"{found}, as tested")


def check_start_up_files() -> Check:
    """Check that no unknown `.pth` file runs code whenever Python starts."""
    unknown = start_up_files(_site_folders())
    if any("litellm" in path.name.lower() for path in unknown):
        return failed(
            "Start-up files",
            f"{', '.join(map(str, unknown))} runs code whenever Python starts; malicious releases of LiteLLM did so.",
            "Remove this environment, and replace every key that was set while it was in use.",
        )
    if unknown:
        return warn(
            "Start-up files",
            f"{', '.join(map(str, unknown))} runs code whenever Python starts and is not known here.",
            "Read the file; if you do not know what put it there, make the environment anew.",
        )
    return ok("Start-up files", "no unknown .pth file")


def start_up_files(folders: Iterator[Path] | tuple[Path, ...]) -> list[Path]:
    """Return the `.pth` files in `folders` that run code and are not of a known tool."""
    return [
        path
        for folder in folders
        for path in sorted(folder.glob("*.pth"))
        if not _KNOWN_START_UP_FILES.fullmatch(path.name)
        and _RUNS_CODE.search(path.read_text(encoding="utf-8", errors="replace"))
    ]


def check_data_folder(folder: Path) -> Check:
    """Check that the data folder can be written and has space."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        return failed(
            "Data folder",
            f"{str(folder)!r} cannot be written ({str(existing)!r} cannot).",
            "Set GUIDANCE_DATA_DIR, or --data-dir, to a folder that can be written.",
            code=ExitCode.STORAGE,
        )
    free = shutil.disk_usage(existing).free
    space = f"{free / _GIGABYTE:,.1f} GB free"
    if free < _NO_SPACE:
        return failed("Data folder", f"{folder}: {space}", "Free some space.", code=ExitCode.STORAGE)
    if free < _LITTLE_SPACE:
        return warn("Data folder", f"{folder}: {space}", "Free some space before it runs out.")
    state = "" if existing == folder else " (made at first use)"
    return ok("Data folder", f"{folder}{state}, {space}")


def _site_folders() -> Iterator[Path]:
    folders = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    if site.ENABLE_USER_SITE and (user := site.getusersitepackages()):
        folders.add(user)
    return (Path(folder) for folder in sorted(folders) if Path(folder).is_dir())


def _pinned(package: str) -> str | None:
    for line in importlib.metadata.requires("guidance-agent") or ():
        match = re.match(rf"{package}==([^\s;,]+)", line)
        if match is not None:
            return match[1]
    return None
