"""What may be removed after a while: how long things are kept, whose an object is, and what is much at once."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta

from moments_core.source import VIDEO_ID, video_id_for_content

MANY = 10_000  # objects: more than a mistake in a setting should be able to remove unseen
FEW = 100  # of so few, half is no news: one superseded version of two, the upload of one refused file

_UPLOAD = re.compile(r"uploads/([0-9a-f]{64})/[^/]+")
_OF_VIDEO = re.compile(r"videos/([^/]+)/.+")


@dataclass(frozen=True, slots=True)
class Limits:
    """How long what is no longer needed is kept.

    versions: superseded versions, since they were superseded. runs: Dagster's runs with their logs, since they ended.
    garbage: objects that no row names, since that was first seen. seconds: how long one clean may take.
    """

    versions: timedelta = timedelta(days=30)
    runs: timedelta = timedelta(days=30)
    garbage: timedelta = timedelta(hours=24)
    seconds: float = 3600.0


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose an object is: the video, and for an uploaded file the SHA-256 of its content."""

    video_id: str
    upload: str | None = None


def owner_of(key: str) -> Owner | None:
    """Whose the object under this key is; None for what has not the form of a key of ours: nobody removes that."""
    if upload := _UPLOAD.fullmatch(key):
        return Owner(video_id_for_content(upload[1]), upload[1])
    of_video = _OF_VIDEO.fullmatch(key)
    return Owner(of_video[1]) if of_video and VIDEO_ID.fullmatch(of_video[1]) else None


def is_bulk(*, versions: int, of_versions: int, objects: int, of_objects: int) -> bool:
    """Whether a clean would remove so much that a person should have said so: over half of one, or many objects."""
    return _is_most(versions, of_versions) or _is_most(objects, of_objects) or objects > MANY


def _is_most(count: int, of: int) -> bool:
    return of >= FEW and count * 2 > of
