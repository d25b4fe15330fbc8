"""The watched simulator and the wired advisor of the advisor's own tests."""

from __future__ import annotations

from tests.integration.advisor.conftest import simulator, wire, wired, wired_runtime

__all__ = ["simulator", "wire", "wired", "wired_runtime"]
