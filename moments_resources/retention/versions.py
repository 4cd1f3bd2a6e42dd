"""Superseded versions of results, and the replies of models that led to them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Connection, text

from moments_resources import gate
from moments_resources.retention.part import Cleaned, Retention
from moments_resources.tables import ASSET_TABLES, transcript_segments

_VIDEOS, _REPLIES = 200, 1000  # a page

#: Whether a step of a video has begun and not ended, one that is about to be tried again in its run included.
AT_WORK = text("""
    select exists (
        select from public.pipeline_history h
        where h.video_id = :video and (h.outcome = 'running' or h.outcome = 'retrying' and not exists (
            select from public.pipeline_history n
            where n.video_id = h.video_id and n.asset = h.asset and n.attempt_id > h.attempt_id)))""")

_WITH_OLD_VERSIONS = text("""
    select distinct video_id from public.artifacts
    where video_id > :after and superseded_at < now() - :keep order by video_id limit :page""")

# What stays keeps all that it was made from, directly or not: its lineage leads somewhere.
_OLD_VERSIONS = text("""
    with recursive kept as (
        select asset, version, inputs from public.artifacts
        where video_id = :video and (superseded_at is null or superseded_at >= now() - :keep)
        union
        select a.asset, a.version, a.inputs
        from kept k cross join lateral jsonb_each_text(k.inputs) as i (asset, version)
        join public.artifacts a on a.video_id = :video and a.asset = i.asset and a.version = i.version::integer
    )
    select asset, version from public.artifacts
    where video_id = :video and superseded_at < now() - :keep
      and (asset, version) not in (select asset, version from kept)
    order by asset, version""")

# Its objects are garbage from now on, and not since some earlier look.
_FORGET_OBJECTS = text("""
    delete from public.garbage where key in (
        select item->>'key' from public.artifacts, jsonb_array_elements(objects) item
        where video_id = :video and asset = :asset and version = any(:versions))""")


class OldVersions:
    """Superseded versions, a video at a time. The current version of an asset is never among them."""

    name = "superseded versions"
    share = 1 / 6

    def __init__(self, retention: Retention) -> None:
        self._database = retention.database
        self._keep = retention.limits.versions

    def candidates(self) -> Iterator[str]:
        """Videos that have such versions."""
        after = ""
        while True:
            with self._database.begin() as connection:
                page = {"after": after, "keep": self._keep, "page": _VIDEOS}
                videos = list(connection.scalars(_WITH_OLD_VERSIONS, page))
            if not videos:
                return
            yield from videos
            after = videos[-1]

    def weigh(self, piece: str) -> Cleaned:
        with self._database.begin() as connection:
            return Cleaned(versions=sum(map(len, self._old(connection, piece).values())))

    def remove(self, piece: str) -> Cleaned:
        """Behind the video's gate: a step that reads a version has begun before, and is at work."""
        with self._database.begin() as connection:
            gate.shut(connection, piece)
            old = self._old(connection, piece)
            rows = sum(_delete(connection, piece, asset, versions) for asset, versions in old.items())
        return Cleaned(versions=sum(map(len, old.values())), rows=rows)

    def _old(self, connection: Connection, video_id: str) -> dict[str, list[int]]:
        if connection.scalar(AT_WORK, {"video": video_id}):
            return {}
        old: dict[str, list[int]] = {}
        for asset, version in connection.execute(_OLD_VERSIONS, {"video": video_id, "keep": self._keep}):
            old.setdefault(asset, []).append(version)
        return old


def _delete(connection: Connection, video_id: str, asset: str, versions: Sequence[int]) -> int:
    """Delete versions of one asset; how many rows of results that were."""
    whose: dict[str, Any] = {"video": video_id, "asset": asset, "versions": list(versions)}
    connection.execute(_FORGET_OBJECTS, whose)
    tables = [ASSET_TABLES[asset], *([transcript_segments] if asset == "transcript" else [])]
    rows = sum(
        connection.execute(
            table.delete().where(table.c.video_id == video_id, table.c.version.in_(versions)),
        ).rowcount
        for table in tables
    )
    catalogued = "delete from public.artifacts where video_id = :video and asset = :asset and version = any(:versions)"
    connection.execute(text(catalogued), whose)
    return rows


# The version that a reply led to is that of the first commit after it. A reply from before a commit is not taken again
# (models/calls.py); that of a version which still stands says how it was made.
_OLD_REPLIES = text("""
    select c.call_id from public.model_calls c
    cross join lateral (
        select min(h.attempt_id) as attempt_id from public.pipeline_history h
        where h.video_id = c.video_id and h.asset = c.asset and h.outcome = 'completed'
          and h.attempt_id >= c.attempt_id
    ) led_to
    where c.call_id > :after and c.started_at < now() - :keep and c.reply <> '' and led_to.attempt_id is not null
      and not exists (select from public.artifacts a
                      where a.video_id = c.video_id and a.asset = c.asset and a.attempt_id = led_to.attempt_id)
      and exists (select from public.artifacts a
                  where a.video_id = c.video_id and a.asset = c.asset and a.attempt_id > c.attempt_id)
    order by c.call_id limit :page""")


class OldReplies:
    """The bodies of replies that led to a version which is gone; the rows of the calls, with all numbers, stay."""

    name = "replies of models"
    share = 1 / 12

    def __init__(self, retention: Retention) -> None:
        self._database = retention.database
        self._keep = retention.limits.versions

    def candidates(self) -> Iterator[list[int]]:
        """Numbers of calls."""
        after = 0
        while True:
            with self._database.begin() as connection:
                page = {"after": after, "keep": self._keep, "page": _REPLIES}
                calls = list(connection.scalars(_OLD_REPLIES, page))
            if not calls:
                return
            yield calls
            after = calls[-1]

    def weigh(self, piece: list[int]) -> Cleaned:
        return Cleaned(replies=len(piece))

    def remove(self, piece: list[int]) -> Cleaned:
        with self._database.begin() as connection:
            emptied = text("update public.model_calls set reply = '' where call_id = any(:calls)")
            return Cleaned(replies=connection.execute(emptied, {"calls": piece}).rowcount)
