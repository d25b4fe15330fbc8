"""A stand-in for the Phoenix server: the launcher starts it as it starts the real one, and it misbehaves on request.

An environment that `fake_environment` makes looks installed; its interpreter runs this file, which answers like the
real server in the few respects that the launcher looks at.
"""

from __future__ import annotations

import http.server
import json
import os
import socket
import sys
import threading
from pathlib import Path
from typing import Literal

from guidance_agent.phoenix.environment import Environment, PinnedList, pinned_list
from guidance_agent.phoenix.server_side import confined, listeners

__all__ = ["Behaviour", "fake_environment"]

Behaviour = Literal["good", "ends_early", "never_answers", "answers_every_host", "listens_beyond", "untold", "no_grpc"]
END = "/end"
"""A request for it ends the server with status 7."""
LAST_WORDS = "the database is of a newer version"


def fake_environment(
    data_folder: Path, behaviour: Behaviour = "good", *, pinned: PinnedList | None = None
) -> Environment:
    """Make an environment in a data folder that passes for an installed one."""
    environment = Environment(data_folder, pinned or pinned_list())
    environment.python.parent.mkdir(parents=True)
    environment.python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{__file__}" {behaviour} "$@"\n')
    environment.python.chmod(0o700)
    stamp = {"requirements": environment.pinned.digest, "version": environment.pinned.version}
    (environment.folder / "guidance-agent.json").write_text(json.dumps(stamp))
    return environment


class _Health(http.server.BaseHTTPRequestHandler):
    behaviour: str

    def do_GET(self) -> None:
        if self.path == END:
            os._exit(7)
        host = self.headers.get("Host", "").partition(":")[0]
        allowed = confined.is_loopback(host) or self.behaviour == "answers_every_host"
        self.send_response(200 if allowed else 403)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        return


def _serve(behaviour: str) -> None:
    confined.end_with_the_launcher()
    if behaviour == "ends_early":
        sys.stderr.write(f"starting\n{LAST_WORDS}\n")
        raise SystemExit(3)
    if behaviour == "never_answers":
        threading.Event().wait()
    if behaviour != "no_grpc":
        grpc = socket.create_server(("127.0.0.1", int(os.environ["PHOENIX_GRPC_PORT"])))
        grpc.listen()
    _Health.behaviour = behaviour
    with http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PHOENIX_PORT"])), _Health) as server:
        server.serve_forever()


def main() -> None:
    behaviour, *arguments = sys.argv[1:]
    if not arguments[-1].isdigit():
        _serve(behaviour)
    elif behaviour == "untold":
        raise SystemExit("not permitted")
    else:
        found = listeners.listeners_of(int(arguments[-1]))
        beyond = [("192.0.2.7", port) for _, port in found[:1]] if behaviour == "listens_beyond" else []
        sys.stdout.write(json.dumps(found + beyond))


if __name__ == "__main__":
    main()
