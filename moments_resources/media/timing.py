"""When a video starts and ends, and how regularly its pictures come; measured on packets, not believed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from moments_resources.media.container import opened, sound_stream, start_us

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.stream import Stream
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

# Packets of the picture that are looked at from the start: 8 s at 30/s, some 5 ms of work.
_SAMPLED_PACKETS = 240
# Or fewer, where they are as large as an editor's intermediate format makes them.
_SAMPLED_BYTES = 16 * 1024**2

# A decoder that has shown nothing after a whole group of pictures (up to 250 frames with common encoders) won't.
_DECODE_ATTEMPTS = 300

# Headers round, and count the padding of an audio codec; what differs by more is a disagreement.
_AGREEMENT_MS = 1000
# A seek aims this far before the declared end, so that packets of both streams follow.
_TAIL_MS = 5000
# A header that says 100 times what is there is wrong rather than the file cut off.
_ABSURD_RATIO = 100
# Containers whose structure proves whether bytes are missing; on the others the times alone can tell.
_PROVABLE = ("mov", "matroska", "avi")

# The last times of the sample may lack pictures that come later in decoding order (16 at most in H.264).
_REORDERED = 16

# Above this it is the tick of a container's clock that was taken for a rate (600 in an AVI of 30/s).
_HIGHEST_RATE = 240
_FALLBACK_RATE = Fraction(25)


@dataclass(frozen=True, slots=True)
class Timing:
    """Times in milliseconds from `start_us`.

    `declared_ms` is the header's word, `end_ms` where the data ends, `picture_end_ms` where the picture does.
    """

    start_us: int
    declared_ms: int | None
    end_ms: int
    picture_end_ms: int
    duration_ms: int
    stops_early: bool
    frame_rate: Fraction
    variable_frame_rate: bool
    encrypted: bool
    first_frame: VideoFrame | None


def read_timing(path: Path, container: InputContainer, video: VideoStream) -> Timing:
    """Sample the start of `path`, opened as `container`, and find the end of its data. Moves the read position."""
    start = start_us(container)
    sample = _sampled(container, video)
    declared = None if container.duration is None else round(container.duration / 1000)
    ends = _data_ends_ms(path, container, video, start, declared)
    end = max(ends.values(), default=0)
    agree = declared is not None and abs(declared - end) <= _AGREEMENT_MS
    return Timing(
        start_us=start,
        declared_ms=declared,
        end_ms=end,
        picture_end_ms=ends.get(video.index, 0),
        duration_ms=declared if agree and declared is not None else end,
        stops_early=_stops_early(container.format.name, declared, end),
        frame_rate=_frame_rate(video, sample.times),
        variable_frame_rate=_is_variable(sample.times, video.time_base or Fraction(1, 1000)),
        encrypted=sample.encrypted,
        first_frame=sample.first_frame,
    )


@dataclass(slots=True)
class _Sample:
    """Presentation times in seconds of the first pictures, in order, and the first one that decodes."""

    times: list[Fraction] = field(default_factory=list)
    encrypted: bool = False
    first_frame: VideoFrame | None = None


def _sampled(container: InputContainer, video: VideoStream) -> _Sample:
    sample, read = _Sample(), 0
    for count, packet in enumerate(container.demux(video)):
        if packet.pts is not None and packet.time_base is not None:
            sample.times.append(packet.pts * packet.time_base)
        sample.encrypted = sample.encrypted or packet.has_sidedata("encryption_info")
        sample.first_frame = sample.first_frame or _first_of(packet)
        read += packet.size
        enough = count >= _SAMPLED_PACKETS or read >= _SAMPLED_BYTES
        if count >= _DECODE_ATTEMPTS or (enough and sample.first_frame is not None):
            sample.times = sorted(sample.times)[:-_REORDERED]
            return sample
    sample.times.sort()
    return sample


def _first_of(packet: Packet[Any]) -> VideoFrame | None:
    import av

    try:
        return next((frame for frame in packet.decode() if isinstance(frame, av.VideoFrame)), None)
    except av.error.FFmpegError:
        # A recording that begins inside a group of pictures: the next key frame decodes.
        return None


def _data_ends_ms(
    path: Path, container: InputContainer, video: VideoStream, start: int, declared_ms: int | None
) -> dict[int, int]:
    """End of picture and sound, by the index of their streams: found near the declared end, else by reading all."""
    streams: list[Stream] = [stream for stream in (video, sound_stream(container)) if stream is not None]
    if declared_ms and _seek(container, start + max(0, declared_ms - _TAIL_MS) * 1000):
        ends = _ends_ms(container, streams, start)
        if video.index in ends:
            return ends
    # Opened anew: an FLV without an index can't be wound back.
    with opened(path) as again:
        return _ends_ms(again, [again.streams[stream.index] for stream in streams], start)


def _seek(container: InputContainer, to_us: int) -> bool:
    import av

    try:
        container.seek(to_us, backward=True)
    except av.error.FFmpegError:
        return False
    return True


def _ends_ms(container: InputContainer, streams: list[Stream], start: int) -> dict[int, int]:
    """Latest end among the packets that are left, by the index of their stream."""
    ends: dict[int, int] = {}
    for packet in _readable(container, streams):
        if packet.pts is not None and packet.time_base is not None:
            end = round((packet.pts + (packet.duration or 0)) * packet.time_base * 1000 - Fraction(start, 1000))
            ends[packet.stream_index] = max(end, ends.get(packet.stream_index, end))
    return ends


def _readable(container: InputContainer, streams: list[Stream]) -> Iterator[Packet[Any]]:
    """Packets up to the end, or to the first that can't be read: there the data ends."""
    import av

    try:
        yield from container.demux(streams)
    except av.error.FFmpegError:
        return


def _stops_early(format_name: str, declared_ms: int | None, end_ms: int) -> bool:
    if declared_ms is None or format_name.startswith(_PROVABLE):
        return False
    return declared_ms - end_ms > max(2 * _AGREEMENT_MS, declared_ms // 50) and declared_ms < end_ms * _ABSURD_RATIO


def _frame_rate(video: VideoStream, times: list[Fraction]) -> Fraction:
    """Mean rate: the container's word where it is a possible one, else from the sampled pictures."""
    for rate in (video.average_rate, video.guessed_rate):
        if rate is not None and 0 < rate <= _HIGHEST_RATE:
            return Fraction(rate)
    if len(times) > 1 and times[-1] > times[0]:
        return Fraction((len(times) - 1) / (times[-1] - times[0])).limit_denominator(1001)
    return _FALLBACK_RATE


def _is_variable(times: list[Fraction], time_base: Fraction) -> bool:
    """True where steps between pictures differ by more than a tenth and more than the clock's own rounding."""
    steps = [later - earlier for earlier, later in pairwise(times)]
    if not steps:
        return False
    usual = median(steps)
    return any(abs(step - usual) > max(usual / 10, 2 * time_base) for step in steps)
