"""The watched simulator and the wired advisor of the advisor's own tests."""

from __future__ import annotations

from tests.integration.advisor.conftest import on_each_database, simulator, wire, wired, wired_runtime

__all__ = ["on_each_database", "simulator", "wire", "wired", "wired_runtime"]
