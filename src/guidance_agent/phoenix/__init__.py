"""Arize Phoenix on this machine: in an environment of its own, and started so that only this machine reaches it.

The server and the package cannot share an environment, because what they depend on excludes each other; and the server
has a licence of its own (Elastic License 2.0). Nothing of it is imported here.
"""

from guidance_agent.phoenix.local import LocalPhoenix, local_phoenix

__all__ = ["LocalPhoenix", "local_phoenix"]
