"""One clock for everything that is measured on a video: 0 is the container's start time."""

from __future__ import annotations

from fractions import Fraction
from math import ceil
from typing import Any

from moments_resources.media.probe import VideoProbe

# Formats whose timestamps may jump. On these ffmpeg moves zero to the first of the streams that it was told to
# read: sound that starts 2 s after the picture came out 2 s early when it was read alone.
_JUMPING_FORMATS = frozenset({"mpegts", "mpeg", "mpegvideo", "ogg", "asf"})

# More than 60/s no common screen shows.
_HIGHEST_RATE = 60
# Slides last seconds and then a cursor moves: the mean rate says little, so the picture may change every 1/30 s.
_VARIABLE_RATE = 30


def constant_rate(probe: VideoProbe) -> Fraction:
    """A constant rate that shows every picture of the video for about its time, at most 60/s."""
    rate = max(probe.frame_rate, Fraction(_VARIABLE_RATE)) if probe.variable_frame_rate else probe.frame_rate
    return rate / max(1, ceil(rate / _HIGHEST_RATE))


def clock_keepers(node: Any, probe: VideoProbe, *, used: set[int], **limits: object) -> list[Any]:
    """Outputs that read and drop the streams of input `node` that are not `used`, so that zero stays where it is."""
    if probe.container not in _JUMPING_FORMATS:
        return []
    others = [stream for stream in probe.streams if stream.kind in {"video", "audio"} and stream.index not in used]
    return [node[str(stream.index)].output("-", format="null", codec="copy", **limits) for stream in others]
