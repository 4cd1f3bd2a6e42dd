"""Make `sample.mp4` and `sample.truth.json`: a talk of three minutes whose topics are known to the millisecond.

Run from the project's folder as `python -m samples.make_sample`. Needs the development requirements and
espeak-ng (`apt-get install espeak-ng`). The same tools on the same kind of processor give the same bytes.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import imageio_ffmpeg

from moments_core.errors import MediaError, MomentsError
from moments_core.time import to_seconds
from samples.captions import Cue, as_srt, cues
from samples.slides import draw_slides
from samples.speech import FRAMES_PER_SECOND, Line, Speech, compose, write_wav
from samples.talk import TALK_TITLE, TOPICS

HERE = Path(__file__).parent
VIDEO = HERE / "sample.mp4"
TRUTH = HERE / "sample.truth.json"

VIDEO_QUALITY = 24  # x264's CRF
KEYFRAME_EVERY = 125  # frames: 5 s, as videos on the web have it
AUDIO_BITRATE = "40k"  # mono at 22,050 Hz, as the synthesiser makes it
LOUDNESS_LUFS = -16.5  # before the limiter, which takes 0.6: between the -16 of podcasts and -18 of levelled players
# espeak-ng's vowels peak 20 dB over its loudness, and AAC at this rate adds 3 dB to a peak. Without compressor and
# limiter the file would clip; with them its true peak stays below -1 dBFS.
COMPRESSOR = "acompressor=threshold=-24dB:ratio=3:attack=5:release=120"
LIMIT = 0.6  # of full scale, -4.4 dB

# One thread and no dates, versions or random ids: two runs give the same bytes.
BITEXACT = ["-threads", "1", "-fflags", "+bitexact", "-flags:v", "+bitexact", "-flags:a", "+bitexact"]
# Slides are RGB; without this the matrix of standard definition is used and players guess it from the size.
COLOUR = (
    "scale=out_color_matrix=bt709:out_range=tv,format=yuv420p,"
    "setparams=colorspace=bt709:color_primaries=bt709:color_trc=bt709:range=tv"
)


def main() -> None:
    """Make both files, and say what was made."""
    try:
        speech = compose()
        captions = cues(speech.lines)
        with tempfile.TemporaryDirectory(prefix="moments-sample-") as folder:
            make_video(speech, captions, Path(folder))
    except MomentsError as error:
        sys.exit(str(error))
    TRUTH.write_text(json.dumps(truth(speech, captions), indent=2) + "\n")
    print(f"{VIDEO.name}: {seconds_of(speech.frames):.2f} s, {len(captions)} captions, {VIDEO.stat().st_size} bytes")


def make_video(speech: Speech, captions: Sequence[Cue], folder: Path) -> None:
    """Write `sample.mp4`; raises MediaError with ffmpeg's own words where it fails."""
    sound, subtitles = folder / "speech.wav", folder / "captions.srt"
    sound.write_bytes(write_wav(speech.samples))
    subtitles.write_text(as_srt(captions))
    slides = [folder / f"slide{index}.png" for index in range(len(slide_frames(speech)))]
    for slide, image in zip(slides, draw_slides(), strict=True):
        image.save(slide)
    arguments = video_arguments(slides, shown_frames(speech), sound, gain_db(sound), subtitles)
    run([*arguments, str(folder / VIDEO.name)])
    shutil.copyfile(folder / VIDEO.name, VIDEO)


def slide_frames(speech: Speech) -> list[int]:
    """The frame at which each slide appears: the first at 0, each other with its first sentence."""
    first_lines = [
        line for line, before in zip(speech.lines[1:], speech.lines, strict=False) if line.slide != before.slide
    ]
    return [0, *(line.span.start_ms * FRAMES_PER_SECOND // 1000 for line in first_lines)]


def shown_frames(speech: Speech) -> list[int]:
    """For how many frames each slide is shown."""
    starts = slide_frames(speech)
    return [end - start for start, end in zip(starts, [*starts[1:], speech.frames], strict=True)]


def gain_db(sound: Path) -> float:
    """The gain that brings the compressed speech to LOUDNESS_LUFS, from its measured loudness (EBU R 128)."""
    report = run(["-i", str(sound), "-af", f"{COMPRESSOR},loudnorm=print_format=json", "-f", "null", "-"])
    measured = re.search(r'"input_i" : "(-?[\d.]+)"', report)
    if measured is None:
        raise MediaError("ffmpeg did not measure the loudness of the speech: it has no sound.", report=report[-500:])
    return LOUDNESS_LUFS - float(measured[1])


def video_arguments(
    slides: Sequence[Path], frames: Sequence[int], sound: Path, gain: float, subtitles: Path
) -> list[str]:
    """What ffmpeg is told, all but the target: stills of counted frames, levelled speech, captions inside."""
    inputs = [word for path in (*slides, sound, subtitles) for word in _input(path)]
    streams = ["-map", "[picture]", "-map", "[sound]", "-map", f"{len(slides) + 1}:s"]
    filters = f"{_picture_filter(frames)};[{len(slides)}:a]{_sound_filter(gain)}[sound]"
    video = ["-c:v", "libx264", "-preset", "slow", "-tune", "stillimage", "-crf", str(VIDEO_QUALITY)]
    video += ["-g", str(KEYFRAME_EVERY)]
    audio = ["-c:a", "aac", "-b:a", AUDIO_BITRATE, "-ac", "1"]
    names = ["-metadata", f"title={TALK_TITLE}", "-metadata:s:a", "language=eng", "-metadata:s:s", "language=eng"]
    target = ["-c:s", "mov_text", *names, *BITEXACT, "-movflags", "+faststart"]
    return [*inputs, "-filter_complex", filters, *streams, *video, *audio, *target]


def _input(path: Path) -> list[str]:
    rate = ["-framerate", str(FRAMES_PER_SECOND)] if path.suffix == ".png" else []
    return [*rate, "-i", str(path)]


def _picture_filter(frames: Sequence[int]) -> str:
    # `-loop 1 -t` would round each duration for itself; counted frames can't drift from the sound.
    stills = [
        f"[{index}:v]{COLOUR},loop=loop={count - 1}:size=1,setpts=N/{FRAMES_PER_SECOND}/TB[slide{index}]"
        for index, count in enumerate(frames)
    ]
    labels = "".join(f"[slide{index}]" for index in range(len(frames)))
    return ";".join([*stills, f"{labels}concat=n={len(frames)}[picture]"])


def _sound_filter(gain: float) -> str:
    # The limiter's look-ahead is a delay of 5 ms unless it makes up for it.
    return f"{COMPRESSOR},volume={gain:.2f}dB,alimiter=limit={LIMIT}:level=false:latency=true"


def run(arguments: Sequence[str]) -> str:
    """Run ffmpeg and return what it says; raises MediaError with its last line where it fails."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-hide_banner", "-y", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise MediaError(f"ffmpeg could not make the sample: {lines[-1]}", exit_status=done.returncode)
    return done.stderr


def truth(speech: Speech, captions: Sequence[Cue]) -> dict[str, object]:
    """What is known of the video, in seconds: a topic lasts from its first word to its last."""
    return {
        "duration": seconds_of(speech.frames),
        "topics": [_topic(topic.title, speech.lines, index) for index, topic in enumerate(TOPICS)],
        "slides": [seconds_of(frame) for frame in slide_frames(speech)],
        "captions": [_timed("text", cue.text, cue.span.start_ms, cue.span.end_ms) for cue in captions],
    }


def _topic(title: str, lines: Sequence[Line], index: int) -> dict[str, object]:
    spans = [line.span for line in lines if line.topic == index]
    return _timed("title", title, spans[0].start_ms, spans[-1].end_ms)


def _timed(name: str, text: str, start_ms: int, end_ms: int) -> dict[str, object]:
    return {"start_time": to_seconds(start_ms), "end_time": to_seconds(end_ms), name: text}


def seconds_of(frames: int) -> float:
    return frames / FRAMES_PER_SECOND


if __name__ == "__main__":
    main()
