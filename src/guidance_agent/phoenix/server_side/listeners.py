"""Prints, as JSON, where a process and its children can be reached: `python listeners.py PID`.

It runs in the server's environment because psutil, which knows every operating system's way to tell, is installed
there. A socket that cannot be looked at is an error and not an empty answer.
"""

from __future__ import annotations

import importlib
import json
import sys
from typing import Any

__all__ = ["listeners_of"]


def listeners_of(pid: int) -> list[tuple[str, int]]:
    """Return address and port of each socket that accepts connections, or datagrams from anybody."""
    psutil = importlib.import_module("psutil")
    process = psutil.Process(pid)
    found = set()
    for each in (process, *process.children(recursive=True)):
        try:
            found |= {tuple(socket.laddr) for socket in each.net_connections(kind="inet") if _accepts(psutil, socket)}
        except psutil.NoSuchProcess:
            if each is process:
                raise
    return sorted(found)


def _accepts(psutil: Any, socket: Any) -> bool:
    if not socket.laddr:
        return False
    return bool(socket.status == psutil.CONN_LISTEN or (socket.status == psutil.CONN_NONE and not socket.raddr))


if __name__ == "__main__":
    sys.stdout.write(json.dumps(listeners_of(int(sys.argv[1]))) + "\n")
