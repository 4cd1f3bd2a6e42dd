"""When a video starts and ends, and how regularly its pictures come; measured on packets, not believed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING, Any

from moments_resources.media.container import sound_stream, start_us

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.stream import Stream
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

# Packets of the picture that are looked at from the start: 8 s at 30/s, some 5 ms of work.
_SAMPLED_PACKETS = 240

# A decoder that has shown nothing after a whole group of pictures (up to 250 frames with common encoders) won't.
_DECODE_ATTEMPTS = 300

# Headers round, and count the padding of an audio codec; what differs by more is a disagreement.
_AGREEMENT_MS = 1000
# A header that says 100 times what is there is wrong rather than the file cut off.
_ABSURD_RATIO = 100
# Containers whose structure proves whether bytes are missing; on the others the times alone can tell.
_PROVABLE = ("mov", "matroska", "avi")

# The last times of the sample may lack pictures that come later in decoding order (16 at most in H.264).
_REORDERED = 16

_FALLBACK_RATE = Fraction(25)


@dataclass(frozen=True, slots=True)
class Timing:
    """Times in milliseconds from `start_us`. `declared_ms` is the header's word, `end_ms` where the data ends."""

    start_us: int
    declared_ms: int | None
    end_ms: int
    duration_ms: int
    stops_early: bool
    frame_rate: Fraction
    variable_frame_rate: bool
    first_frame: VideoFrame | None


def read_timing(container: InputContainer, video: VideoStream) -> Timing:
    """Sample the start of an opened file and find the end of its data. Moves the read position."""
    start = start_us(container)
    times, first_frame = _sampled(container, video)
    declared = None if container.duration is None else round(container.duration / 1000)
    end = _data_end_ms(container, video, start, declared)
    agree = declared is not None and abs(declared - end) <= _AGREEMENT_MS
    return Timing(
        start_us=start,
        declared_ms=declared,
        end_ms=end,
        duration_ms=declared if agree and declared is not None else end,
        stops_early=_stops_early(container.format.name, declared, end),
        frame_rate=_frame_rate(video, times),
        variable_frame_rate=_is_variable(times, video.time_base or Fraction(1, 1000)),
        first_frame=first_frame,
    )


def _sampled(container: InputContainer, video: VideoStream) -> tuple[list[Fraction], VideoFrame | None]:
    """Presentation times in seconds of the first pictures, in order, and the first one that decodes."""
    import av

    times: list[Fraction] = []
    first: VideoFrame | None = None
    for count, packet in enumerate(container.demux(video)):
        if packet.pts is not None and packet.time_base is not None:
            times.append(packet.pts * packet.time_base)
        if first is None:
            try:
                first = next(iter(packet.decode()), None)
            except av.error.FFmpegError:
                # A recording that begins inside a group of pictures: the next key frame decodes.
                first = None
        if count >= (_SAMPLED_PACKETS if first is not None else _DECODE_ATTEMPTS):
            break
    return sorted(times), first


def _data_end_ms(container: InputContainer, video: VideoStream, start: int, declared_ms: int | None) -> int:
    """End of the last packet: found by a seek to the declared end, else by reading the whole file."""
    streams: list[Stream] = [stream for stream in (video, sound_stream(container)) if stream is not None]
    if declared_ms:
        end = _last_end(container, streams, start, seek_to_us=start + declared_ms * 1000)
        if end is not None:
            return end
    return _last_end(container, streams, start, seek_to_us=start) or 0


def _last_end(container: InputContainer, streams: list[Stream], start: int, *, seek_to_us: int) -> int | None:
    import av

    try:
        container.seek(seek_to_us, backward=True)
    except av.error.FFmpegError:
        return None
    ends = [end for packet in _readable(container, streams) if (end := _end_us(packet)) is not None]
    return round((max(ends) - start) / 1000) if ends else None


def _readable(container: InputContainer, streams: list[Stream]) -> Iterator[Packet[Any]]:
    """Packets up to the end, or to the first that can't be read: there the data ends."""
    import av

    try:
        yield from container.demux(streams)
    except av.error.FFmpegError:
        return


def _end_us(packet: Packet[Any]) -> Fraction | None:
    if packet.pts is None or packet.time_base is None:
        return None
    return (packet.pts + (packet.duration or 0)) * packet.time_base * 1_000_000


def _stops_early(format_name: str, declared_ms: int | None, end_ms: int) -> bool:
    if declared_ms is None or format_name.startswith(_PROVABLE):
        return False
    return declared_ms - end_ms > max(2 * _AGREEMENT_MS, declared_ms // 50) and declared_ms < end_ms * _ABSURD_RATIO


def _frame_rate(video: VideoStream, times: list[Fraction]) -> Fraction:
    """Mean rate: the container's word where it is a possible one, else from the sampled pictures."""
    for rate in (video.average_rate, video.guessed_rate):
        if rate is not None and 0 < rate <= 1000:
            return Fraction(rate)
    if len(times) > 1 and times[-1] > times[0]:
        return Fraction((len(times) - 1) / (times[-1] - times[0])).limit_denominator(1001)
    return _FALLBACK_RATE


def _is_variable(times: list[Fraction], time_base: Fraction) -> bool:
    """True where steps between pictures differ by more than a tenth and more than the clock's own rounding."""
    steps = [later - earlier for earlier, later in pairwise(times[:-_REORDERED])]
    if not steps:
        return False
    usual = median(steps)
    return any(abs(step - usual) > max(usual / 10, 2 * time_base) for step in steps)
