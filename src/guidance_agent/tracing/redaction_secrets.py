"""Keys, tokens and passwords."""

from __future__ import annotations

import re
from collections.abc import Iterator

from guidance_agent.tracing.redaction_rules import Found
from guidance_agent.tracing.redaction_views import Reading

__all__ = ["secrets"]

_SAID = re.compile(
    r"(?:password|passwd|passcode|memorable word|api[_-]?key|secret(?!\sis)|authorization)[\"']?(?:\s?[:=]\s?|\sis\s)"
    r"(?:[\"']|(?=\S*[0-9]))(?P<value>[^\s\"',;}]{3,128})"
)
_KEY = re.compile(r"(?P<value>(?:sk|pk|rk|key|ghp|xox[abp])[-_][0-9a-z_-]{16,})")
_SECRETS = {
    re.compile(r"bearer\s+(?P<value>[0-9a-z._~+/-]{8,}=*)"): ("bearer",),
    re.compile(r"(?P<value>eyj[0-9a-z_-]{10,}\.[0-9a-z_-]{10,}(?:\.[0-9a-z_-]*)?)"): ("eyj",),
    re.compile(r"://[^/\s:@\"']{0,64}:(?P<value>[^/\s@\"']{1,128})@"): ("://",),
    _SAID: ("passw", "passcode", "memorable", "api_key", "api-key", "apikey", "secret", "authorization"),
}
_TOKEN = re.compile(r"[-_][0-9a-z_-]{16}")


def secrets(reading: Reading) -> Iterator[Found]:
    """Keys, tokens and passwords, as they stand in the messages of failed calls."""
    text = reading.lower
    for pattern, signs in _SECRETS.items():
        if any(sign in text for sign in signs):
            for found in pattern.finditer(text):
                yield Found(*found.span("value"), "SECRET")
    for found in _KEY.finditer(text) if _TOKEN.search(text) is not None else ():
        yield Found(*found.span("value"), "SECRET")
