"""The jobs of batches, for cron and systemd: `python scripts/batch_jobs.py nightly|afternoon|status|cancel`.

Does what `guidance-agent batch` does, with the Python that it is started with, in whatever folder.
"""

from __future__ import annotations

import sys

from guidance_agent.cli.main import run

if __name__ == "__main__":
    sys.exit(run(["batch", *sys.argv[1:]]))
