"""A video as a model's server takes it in: fetched or decoded for real, by a decoder that knows no edit lists."""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import urllib.error
import urllib.request
from dataclasses import dataclass

import av
import numpy as np

_MOST_BYTES = 200_000_000
_FETCH_S = 20.0
_CHANGE = 40  # of 255: a cut between two colours is far over it, noise and compression far under


@dataclass(frozen=True)
class WatchedVideo:
    """A video in a request. `by`: how it came. `picture_ms`: time of each picture, as the file's samples say."""

    by: str  # "url" or "inline"
    url: str  # without the data of an inline one
    bytes: int
    sha256: str
    width: int
    height: int
    has_sound: bool
    duration_ms: int
    picture_ms: tuple[int, ...]
    mean_rgb: tuple[tuple[int, int, int], ...]

    @property
    def change_ms(self) -> int | None:
        """When the picture's colour first becomes another one."""
        for time_ms, before, after in zip(self.picture_ms[1:], self.mean_rgb, self.mean_rgb[1:], strict=False):
            if max(abs(one - other) for one, other in zip(before, after, strict=True)) > _CHANGE:
                return time_ms
        return None


def watch(url: str, *, longest_s: float) -> WatchedVideo:
    """Take in a video from `http(s):` or `data:`. ValueError, as the server words it, for what can't be used."""
    by, data = ("inline", _decoded(url)) if url.startswith("data:") else ("url", _fetched(url))
    try:
        with av.open(io.BytesIO(data), options={"ignore_editlist": "1"}) as container:
            stream = container.streams.video[0]
            frames = [
                (frame.pts * frame.time_base, frame.to_ndarray(format="rgb24")) for frame in container.decode(stream)
            ]
            sound, length = bool(container.streams.audio), (stream.duration or 0) * (stream.time_base or 0)
    except (av.error.FFmpegError, IndexError, TypeError) as error:
        raise ValueError("The video can't be decoded.") from error
    if not frames:
        raise ValueError("The video holds no picture.")
    if length > longest_s:
        raise ValueError(f"The video is longer than {longest_s:g} s.")
    means = [tuple(int(value) for value in np.mean(picture, axis=(0, 1))) for _, picture in frames]
    return WatchedVideo(
        by=by,
        url=url if by == "url" else url.partition(",")[0],
        bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        width=frames[0][1].shape[1],
        height=frames[0][1].shape[0],
        has_sound=sound,
        duration_ms=round(length * 1000),
        picture_ms=tuple(round(time * 1000) for time, _ in frames),
        mean_rgb=means,  # type: ignore[arg-type]
    )


def _decoded(url: str) -> bytes:
    head, _, payload = url.partition(",")
    if not head.startswith("data:video/") or not head.endswith(";base64"):
        raise ValueError("The data URL is no video in base64.")
    try:
        return base64.b64decode(payload, validate=True)
    except binascii.Error as error:
        raise ValueError("The data URL is no base64.") from error


def _fetched(url: str) -> bytes:
    if not url.startswith(("http://", "https://")):
        raise ValueError("The video's address is neither http(s) nor data.")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=_FETCH_S) as response:
            data: bytes = response.read(_MOST_BYTES + 1)
    except urllib.error.HTTPError as error:
        with error:
            raise ValueError(f"The video's address answers {error.code}.") from error
    except OSError as error:
        raise ValueError("The video's address does not answer.") from error
    if len(data) > _MOST_BYTES:
        raise ValueError("The video is too large.")
    return data
