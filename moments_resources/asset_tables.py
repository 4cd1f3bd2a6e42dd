"""The tables of the assets: their columns, types and meaning, declared once, as plain data.

Plain, because the code location needs them for the column schema in the UI, and SQLAlchemy costs a third of what
importing Dagster does. tables.py makes SQL tables of them, IO managers check what an asset returns against them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["text", "integer", "bigint", "float", "boolean", "json", "time"]

IDENTITY_COLUMNS = ("video_id", "version")
MEDIA_COLUMNS = ("object_key", "bytes", "sha256")


@dataclass(frozen=True, slots=True)
class AssetColumn:
    """One column. `comment` becomes the column schema in the UI and docs/tables.md."""

    name: str
    kind: Kind
    comment: str
    nullable: bool


@dataclass(frozen=True, slots=True)
class AssetTable:
    """The columns that an asset gives. `key` names a row within (video_id, version); empty: one row a video."""

    name: str
    columns: tuple[AssetColumn, ...]
    comment: str
    key: tuple[str, ...] = ()

    @property
    def column_names(self) -> list[str]:
        return [column.name for column in self.columns]

    @property
    def holds_media(self) -> bool:
        """Whether each row stands for a file."""
        return set(MEDIA_COLUMNS) <= set(self.column_names)


def _required(name: str, kind: Kind, comment: str) -> AssetColumn:
    return AssetColumn(name, kind, comment, nullable=False)


def _optional(name: str, kind: Kind, comment: str) -> AssetColumn:
    return AssetColumn(name, kind, comment, nullable=True)


_FILE = (
    _required("object_key", "text", "Key of the file in the object store."),
    _required("bytes", "bigint", "Size of the file in bytes."),
    _required("sha256", "text", "SHA-256 of the file."),
)
_FILE_OR_NONE = tuple(_optional(column.name, column.kind, column.comment) for column in _FILE)

VIDEOS = AssetTable(
    "videos",
    columns=(
        _required("url", "text", "Where it came from; what is secret in it is `***`."),
        _required("site", "text", "Site it came from (youtube, web, file, …)."),
        _optional("title", "text", "Title on the site, or the file's name."),
        _optional("channel", "text", "Channel or uploader."),
        _optional("published_at", "time", "When the site published it."),
        _optional("description", "text", "Description on the site."),
        _required("duration_ms", "bigint", "Length in milliseconds."),
        _required("width", "integer", "Pixels, as displayed."),
        _required("height", "integer", "Pixels, as displayed."),
        _required("fps", "float", "Frames a second; the mean where the rate varies."),
        _required("variable_frame_rate", "boolean", "Whether the rate varies."),
        _required("container", "text", "Container format."),
        _required("video_codec", "text", "Codec of the picture."),
        _optional("audio_codec", "text", "Codec of the sound; empty where there is none."),
        _required("has_audio", "boolean", "Whether there is a sound stream."),
        _required("streams", "json", "All streams: kind, codec, language."),
        _optional("captions", "text", "The video's own captions, as WebVTT or SRT."),
        _optional("captions_language", "text", "Their language."),
        _optional("captions_source", "text", "human_captions or automatic_captions."),
        *_FILE,
    ),
    comment="The raw videos: one row a video.",
)

AUDIO = AssetTable(
    "audio",
    columns=(
        _required("state", "text", "sound, silent (a stream with nothing to hear) or none (no sound stream)."),
        _required("duration_ms", "bigint", "Length in milliseconds; 0 where there is none."),
        _optional("loudness_lufs", "float", "Integrated loudness (EBU R 128), LUFS."),
        _optional("loudness_range_lu", "float", "Loudness range (EBU R 128), LU."),
        _optional("peak_db", "float", "Peak level, dBFS."),
        _required("silences", "json", "Pauses: [[start_ms, end_ms], …]."),
        _required("rms_db", "json", "Level, dBFS, one number a second."),
        *_FILE_OR_NONE,
    ),
    comment="The sound as 16 kHz mono FLAC, with its pauses and loudness: one row a video.",
)

TRANSCRIPTS = AssetTable(
    "transcripts",
    columns=(
        _required("has_speech", "boolean", "Whether anything was said."),
        _optional("language", "text", "BCP 47 tag, where known."),
        _required("source", "text", "human_captions, automatic_captions, speech_model or none."),
        _required("model", "text", "What made it."),
        _required("word_timing", "text", "measured, interpolated or none."),
        _required("full_text", "text", "All that was said."),
        _required("word_timestamps", "json", "[{start_ms, end_ms, text, confidence}]."),
        _required("segment_timestamps", "json", "[{start_ms, end_ms, text, speaker, turn_start}]."),
    ),
    comment="What was said: one row a video.",
)

TRANSCRIPT_SEGMENTS = AssetTable(
    "transcript_segments",
    columns=(
        _required("ordinal", "integer", "1, 2, … in time order."),
        _required("start_ms", "bigint", "Start in milliseconds."),
        _required("end_ms", "bigint", "End in milliseconds (exclusive)."),
        _required("text", "text", "The sentence."),
        _optional("speaker", "text", "Who, where known."),
    ),
    key=("ordinal",),
    comment="What was said, a row a sentence, with a full-text index (to_tsvector('simple', text)).",
)

SCENE_CUTS = AssetTable(
    "scene_cuts",
    columns=(
        _required("time_ms", "bigint", "First frame of the new scene, in milliseconds."),
        _required("score", "float", "How strong the change is, 0..100."),
    ),
    key=("time_ms",),
    comment="Where the picture changes: one row a cut.",
)

THUMBNAILS = AssetTable(
    "thumbnails",
    columns=(
        _required("time_ms", "bigint", "Time of the picture in milliseconds."),
        _required("width", "integer", "Pixels."),
        _required("height", "integer", "Pixels."),
        *_FILE,
    ),
    key=("time_ms",),
    comment="Small pictures of the video, a row each.",
)

MOMENTS = AssetTable(
    "moments",
    columns=(
        _required("moment_id", "text", "Name of the moment: equal for equal video, span and title."),
        _required("ordinal", "integer", "1, 2, … in time order."),
        _required("start_ms", "bigint", "Start in milliseconds."),
        _required("end_ms", "bigint", "End in milliseconds (exclusive)."),
        _required("title", "text", "What it is about."),
        _required("score", "float", "0..1: how much it deserves to be watched."),
        _optional("query", "text", "What was looked for, where something was asked for."),
        _required("found_by", "text", "Maker and its version."),
        _required("generation_config", "text", "How: generation_configs.sha256."),
    ),
    key=("moment_id",),
    comment="Titled spans of the video: one row a moment.",
)

CLIPS = AssetTable(
    "clips",
    columns=(
        _required("moment_id", "text", "The moment that it shows."),
        _required("start_ms", "bigint", "Where the clip starts in the video, ms: clip time + start_ms = video time."),
        _required("end_ms", "bigint", "Where it ends in the video, ms (exclusive)."),
        _required("duration_ms", "bigint", "Length as decoded, ms."),
        _required("frames", "integer", "Frames as decoded."),
        _required("fps", "float", "Frames a second, constant."),
        _required("width", "integer", "Pixels."),
        _required("height", "integer", "Pixels."),
        *_FILE,
    ),
    key=("moment_id",),
    comment="A video file for each moment, padded on both sides.",
)

REFINED_MOMENTS = AssetTable(
    "refined_moments",
    columns=(
        _required("moment_id", "text", "The moment that was refined."),
        _required("start_ms", "bigint", "Refined start in milliseconds."),
        _required("end_ms", "bigint", "Refined end in milliseconds (exclusive)."),
        _required("title", "text", "Title, as the parent's."),
        _required("refined_by", "text", "Maker and its version."),
        _required("note", "text", "What moved the boundaries, or why they stayed."),
    ),
    key=("moment_id",),
    comment="Each moment with refined boundaries; the original stays in moments.",
)

#: The way in: no asset makes it, people and programs do.
URL_INTAKE = AssetTable(
    "url_intake",
    columns=(
        _required("intake_id", "bigint", "Number of the submission."),
        _required(
            "url",
            "text",
            "As submitted: an http(s) URL, which may hold a signed query, or `upload:` and the key of an uploaded "
            "file.",
        ),
        _required("options", "json", "What was asked for: see moments_core/options.py."),
        _required("priority", "integer", "Higher goes first."),
        _required("submitted_at", "time", "When."),
        _required("submitted_by", "text", "Database user or program that submitted it."),
        _optional("name", "text", "What the submitter calls it, e.g. the file's name."),
        _optional(
            "video_id", "text", "Partition key; set once, by us, when the URL has been read. Never typed by a user."
        ),
        _optional(
            "listed_in",
            "bigint",
            "The submission whose address led to a list with this video; empty: submitted by itself.",
        ),
        _optional("registered_at", "time", "When the sensor made its partition; empty: not yet."),
        _required(
            "settled",
            "boolean",
            "A mark for the sensors alone: this row has ended, they need not look at it. Its state: intake_state.",
        ),
    ),
    comment="One row a submission. The only way in. A row's state is derived: see the view intake_state.",
)

#: The table of each asset, in the order in which data flows.
BY_ASSET = {
    "raw_video": VIDEOS,
    "audio": AUDIO,
    "transcript": TRANSCRIPTS,
    "scene_cuts": SCENE_CUTS,
    "thumbnails": THUMBNAILS,
    "moments": MOMENTS,
    "clips": CLIPS,
    "refined_moments": REFINED_MOMENTS,
}
