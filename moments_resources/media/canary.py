"""A clip whose one event happens at a known time: asked for it, a model tells how its server's clock runs."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from moments_resources.media.container import compiled
from moments_resources.media.proxy import silent_mp4
from moments_resources.media.runner import FfmpegRunner, whole_file

# No whole second, which a model would guess; not the middle; on the grid of 2 pictures a second, so that a server that
# samples so can answer exactly. Twice and half of it are far away: a server that mistakes the rate is found out.
_CHANGE_MS = 6_500
_LENGTH_MS = 10_000
_BEFORE, _AFTER = "blue", "yellow"  # unlike in hue and in brightness

_RATE = Fraction(4)  # as a proxy of a clip
_SIZE = "480x270"
_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Canary:
    """What the file shows: `before` up to `change_ms`, `after` from there to `duration_ms`."""

    change_ms: int
    duration_ms: int
    before: str
    after: str


def make_canary(runner: FfmpegRunner, target: Path) -> Canary:
    """Write the canary clip, encoded as the proxies are that the model will watch; the same bytes each time."""
    with whole_file(target) as part:
        runner.run(canary_command(part), timeout_s=_TIMEOUT_S)
    return Canary(_CHANGE_MS, _LENGTH_MS, _BEFORE, _AFTER)


def canary_command(target: Path) -> list[str]:
    import ffmpeg

    parts = [_still(_BEFORE, _CHANGE_MS), _still(_AFTER, _LENGTH_MS - _CHANGE_MS)]
    return compiled([silent_mp4(ffmpeg.concat(*parts), target, _RATE)])


def _still(colour: str, length_ms: int) -> Any:
    import ffmpeg

    return ffmpeg.input(f"color=c={colour}:s={_SIZE}:r={_RATE}:d={length_ms}ms", f="lavfi")
