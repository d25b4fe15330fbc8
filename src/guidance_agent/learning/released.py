"""The rules of a release, as Part 2 of the prompt shows them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import sqlalchemy as sa

from guidance_agent.advisor.prompts import ReleasedRule, ReleasedRules
from guidance_agent.core.schema import rule_releases, rules

if TYPE_CHECKING:
    from guidance_agent.core.database import Database

__all__ = ["released_rules"]

_IDS_AT_ONCE = 500


async def released_rules(
    database: Database, *, include_simulated: bool = False, version: int | None = None
) -> ReleasedRules:
    """Return the rules of a release, the latest one where none is named; version 0 where there is none.

    Args:
        database: The records.
        include_simulated: Whether rules that a simulated model led to count; only where every answer is simulated.
        version: The release.
    """
    return await database.run(partial(_read, include_simulated=include_simulated, version=version))


def _read(connection: sa.Connection, *, include_simulated: bool, version: int | None) -> ReleasedRules:
    query = sa.select(rule_releases.c.version, rule_releases.c.rule_ids)
    if version is not None:
        query = query.where(rule_releases.c.version == version)
    release = connection.execute(query.order_by(rule_releases.c.version.desc()).limit(1)).first()
    if release is None:
        return ReleasedRules()
    ids: list[str] = release.rule_ids
    texts: dict[str, str] = {}
    for start in range(0, len(ids), _IDS_AT_ONCE):
        some = sa.select(rules.c.id, rules.c.text).where(rules.c.id.in_(ids[start : start + _IDS_AT_ONCE]))
        if not include_simulated:
            some = some.where(rules.c.simulated.is_(False))
        texts.update((row.id, row.text) for row in connection.execute(some))
    # In the order of the release: a prompt that is read from a cache must not depend on how rows come back.
    return ReleasedRules(release.version, tuple(ReleasedRule(each, texts[each]) for each in ids if each in texts))
