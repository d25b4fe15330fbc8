"""The documentation site: it is built from docstrings, guides and specs, and every warning is an error."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(300)
def test_the_site_is_built_without_a_warning_and_loads_nothing_from_other_hosts(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    built = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    )
    assert (built.returncode, built.stderr) == (0, "")
    reference = (tmp_path / "site" / "api" / "guidance_agent" / "index.html").read_text(encoding="utf-8")
    assert "provide_guidance_stream" in reference
    start = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    assert 'href="specs/batch/"' in start or 'href="specs/"' in start
    assert "fonts.googleapis" not in start
