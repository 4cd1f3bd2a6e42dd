"""One clock for everything that is measured on a video: 0 is the container's start time."""

from __future__ import annotations

from typing import Any

from moments_resources.media.probe import VideoProbe

# Formats whose timestamps may jump. On these ffmpeg moves zero to the first of the streams that it was told to
# read: sound that starts 2 s after the picture came out 2 s early when it was read alone.
_JUMPING_FORMATS = frozenset({"mpegts", "mpeg", "mpegvideo", "ogg", "asf"})


def clock_keepers(node: Any, probe: VideoProbe, *, used: set[int], **limits: object) -> list[Any]:
    """Outputs that read and drop the streams of input `node` that are not `used`, so that zero stays where it is."""
    if probe.container not in _JUMPING_FORMATS:
        return []
    others = [stream for stream in probe.streams if stream.kind in {"video", "audio"} and stream.index not in used]
    return [node[str(stream.index)].output("-", format="null", codec="copy", **limits) for stream in others]
