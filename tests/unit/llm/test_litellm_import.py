"""LiteLLM is imported when it is used, with what it would do by itself switched off."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest


def run(script: str, folder: Path, **variables: str) -> str:
    """Run a script in a fresh interpreter in `folder`, without what the machine has set; its output."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("LITELLM", "GUIDANCE"))}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=folder,
        env=environment | variables,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_the_transport_does_not_import_litellm(tmp_path: Path) -> None:
    script = """
        import sys
        from guidance_agent.llm.transports.litellm import LiteLLMTransport
        from guidance_agent.settings import Settings
        LiteLLMTransport(Settings())
        print([name for name in ("litellm", "openai", "httpx") if name in sys.modules])
    """
    assert run(script, tmp_path) == "[]"


def test_a_missing_library_is_named_with_the_way_out(tmp_path: Path) -> None:
    script = """
        import asyncio, sys
        sys.modules["litellm"] = None
        from guidance_agent.errors import MissingExtraError
        from guidance_agent.llm.transports.litellm_import import load
        try:
            asyncio.run(load())
        except MissingExtraError as error:
            print(error)
    """
    said = run(script, tmp_path)
    assert "'litellm' cannot be imported" in said
    assert "pip install litellm==" in said


@pytest.mark.slow
def test_the_import_reads_no_env_file_fetches_nothing_and_keeps_what_the_user_set(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("PLANTED_BY_ENV_FILE=yes\n")
    script = """
        import asyncio, logging, os, socket
        def no_network(*arguments):
            raise AssertionError("the import opened a connection")
        socket.socket.connect = no_network
        from guidance_agent.llm.transports.litellm_import import load
        litellm = asyncio.run(load()).litellm
        print(
            "PLANTED_BY_ENV_FILE" in os.environ,
            os.environ["LITELLM_LOG"],
            os.environ["LITELLM_MODE"],
            litellm.suppress_debug_info,
            litellm.REPEATED_STREAMING_CHUNK_LIMIT > 10**9,
            litellm.success_callback + litellm.failure_callback + litellm.callbacks,
            logging.getLogger("httpx").level == logging.WARNING,
            asyncio.run(load()).litellm is litellm,
        )
    """
    assert run(script, tmp_path, LITELLM_LOG="CRITICAL") == "False CRITICAL PRODUCTION True True [] True True"
