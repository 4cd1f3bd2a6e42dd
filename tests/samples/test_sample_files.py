"""The committed sample: the video and its truth agree with each other."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import pytest
from av.container import InputContainer

SAMPLES = Path(__file__).parents[2] / "samples"
VIDEO = SAMPLES / "sample.mp4"
FRAME_S = 0.04


@pytest.fixture(scope="module")
def truth() -> Any:
    return json.loads((SAMPLES / "sample.truth.json").read_text())


@pytest.fixture
def video() -> Iterator[InputContainer]:
    with av.open(str(VIDEO)) as container:
        yield container


def captions_in(video: InputContainer) -> list[tuple[float, float, str]]:
    """Captions of the file in seconds; a packet of mov_text is a length of two bytes and the text."""
    return [
        (_seconds(packet, packet.pts), _seconds(packet, packet.pts, packet.duration), _text(packet))
        for packet in video.demux(video.streams.subtitles[0])
        if packet.size > 2
    ]


def _seconds(packet: av.Packet[Any], *ticks: int | None) -> float:
    return float(packet.time_base * sum(tick for tick in ticks if tick is not None))


def _text(packet: av.Packet[Any]) -> str:
    return bytes(packet)[2:].decode().replace("\n", " ")


def test_the_sample_video_stays_under_three_megabytes() -> None:
    assert VIDEO.stat().st_size < 3_000_000


def test_the_sample_video_holds_h264_aac_and_english_captions(video: InputContainer) -> None:
    picture, sound, captions = video.streams.video[0], video.streams.audio[0], video.streams.subtitles[0]
    assert [stream.codec_context.name for stream in video.streams] == ["h264", "aac", "mov_text"]
    assert (picture.width, picture.height) == (640, 360)
    assert picture.average_rate == 25
    assert sound.channels == 1
    assert captions.language == "eng"


def test_the_sample_video_lasts_as_long_as_its_truth_says(video: InputContainer, truth: dict[str, Any]) -> None:
    assert video.duration is not None
    assert video.duration / 1_000_000 == pytest.approx(truth["duration"], abs=FRAME_S)
    assert 170 <= truth["duration"] <= 200


def test_the_topics_follow_one_another_inside_the_video(truth: dict[str, Any]) -> None:
    times = [topic[edge] for topic in truth["topics"] for edge in ("start_time", "end_time")]
    assert len(truth["topics"]) >= 4
    assert times == sorted(set(times))
    assert times[0] >= 0
    assert times[-1] <= truth["duration"]
    assert all(topic["end_time"] - topic["start_time"] >= 30 for topic in truth["topics"])


def test_a_slide_appears_with_each_topic(truth: dict[str, Any]) -> None:
    slides = truth["slides"]
    assert slides[0] == 0
    assert slides == sorted(set(slides))
    assert {topic["start_time"] for topic in truth["topics"][1:]} <= set(slides)


def test_the_picture_changes_at_the_true_slide_times(video: InputContainer, truth: dict[str, Any]) -> None:
    # x264 puts a keyframe on a cut; only keyframes are decoded, and each shows the slide of its time.
    video.streams.video[0].codec_context.skip_frame = "NONKEY"
    corners = [(frame.time, frame.to_ndarray(format="gray")[0, 0]) for frame in video.decode(video=0)]
    changes = [time for (_, before), (time, after) in pairwise(corners) if abs(int(after) - int(before)) > 30]
    assert changes == pytest.approx(truth["slides"][1:], abs=FRAME_S)


def test_the_captions_inside_are_those_of_the_truth(video: InputContainer, truth: dict[str, Any]) -> None:
    inside = captions_in(video)
    assert [text for _, _, text in inside] == [caption["text"] for caption in truth["captions"]]
    times = [time for start, end, _ in inside for time in (start, end)]
    expected = [caption[edge] for caption in truth["captions"] for edge in ("start_time", "end_time")]
    assert times == pytest.approx(expected, abs=0.002)


def test_every_topic_begins_and_ends_with_a_caption(truth: dict[str, Any]) -> None:
    starts = {caption["start_time"] for caption in truth["captions"]}
    ends = {caption["end_time"] for caption in truth["captions"]}
    assert {topic["start_time"] for topic in truth["topics"]} <= starts
    assert {topic["end_time"] for topic in truth["topics"]} <= ends
