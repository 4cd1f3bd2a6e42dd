"""The lakehouse tables: their columns, types and meaning, declared once.

Base tables of the assets live in schema `versions` and hold every version; views of the same name in schema
`public` show the current one (views.py). What is not versioned lives in `public`. Dagster's own storage has the
schema `dagster`. The comments here become the column schema in the UI and docs/tables.md.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Float,
    ForeignKey,
    Identity,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

VERSIONS = "versions"

metadata = MetaData()


def _required(name: str, kind: Any, comment: str, **more: Any) -> Column[Any]:
    return Column(name, kind, nullable=False, comment=comment, **more)


def _optional(name: str, kind: Any, comment: str) -> Column[Any]:
    return Column(name, kind, nullable=True, comment=comment)


url_intake = Table(
    "url_intake",
    metadata,
    Column("intake_id", BigInteger, Identity(always=True), primary_key=True, comment="Number of the submission."),
    _required("url", Text, "What was submitted: an http(s) URL, or `upload:` and the object key of an uploaded file."),
    _required("options", JSONB, "What was asked for: see moments_core/options.py.", server_default=text("'{}'")),
    _required("priority", Integer, "Higher goes first.", server_default=text("0")),
    _required("submitted_at", DateTime(timezone=True), "When.", server_default=func.now()),
    _required("submitted_by", Text, "Database user or program that submitted it.", server_default=text("current_user")),
    _optional("name", Text, "What the submitter calls it, e.g. the file's name."),
    _optional("video_id", Text, "Partition key; set once, by us, when the URL has been read. Never typed by a user."),
    Index("url_intake_video_id", "video_id"),
    comment="One row a submission. The only way in. A row's state is derived: see the view intake_state.",
)

pipeline_history = Table(
    "pipeline_history",
    metadata,
    Column("attempt_id", BigInteger, Identity(always=True), primary_key=True, comment="Number of the attempt."),
    _optional("video_id", Text, "The video, where its name is known."),
    _required("asset", Text, "The asset; raw_video, with no video_id, for a submission that was refused."),
    _required("attempt", Integer, "1, 2, … for this video and asset; an open one alone may commit."),
    _required("outcome", Text, "running, completed, reused, retrying, failed or cancelled."),
    Column("class", Text, nullable=True, comment="Failure class: permanent, transient, cancelled or budget."),
    _optional("cause", Text, "One sentence: what went wrong and what to do."),
    _optional("evidence", JSONB, "Facts behind the cause."),
    _optional("progress", Float, "0..1 while it runs."),
    _optional("seconds", Float, "How long it took."),
    _required("started_at", DateTime(timezone=True), "When it began.", server_default=func.now()),
    _optional("ended_at", DateTime(timezone=True), "When it ended; empty while it runs."),
    _optional("intake_id", BigInteger, "The submission that asked for it; empty for a click in the UI."),
    _optional("run_id", Text, "Dagster's run."),
    _required("host", Text, "Machine that did the work."),
    _required("pid", Integer, "Process that did the work."),
    UniqueConstraint("video_id", "asset", "attempt", name="pipeline_history_attempt"),
    CheckConstraint(
        "outcome in ('running', 'completed', 'reused', 'retrying', 'failed', 'cancelled')",
        name="pipeline_history_outcome",
    ),
    CheckConstraint(
        "class is null or class in ('permanent', 'transient', 'cancelled', 'budget')", name="pipeline_history_class"
    ),
    CheckConstraint(
        "outcome not in ('retrying', 'failed', 'cancelled') or (class is not null and cause is not null)",
        name="pipeline_history_failure_is_explained",
    ),
    CheckConstraint("(outcome = 'running') = (ended_at is null)", name="pipeline_history_running_is_open"),
    Index("pipeline_history_intake", "intake_id"),
    comment="Every attempt at every asset, kept for good.",
)

artifacts = Table(
    "artifacts",
    metadata,
    _required("video_id", Text, "The video."),
    _required("asset", Text, "The asset."),
    _required("version", Integer, "1, 2, … for this video and asset."),
    _required("attempt_id", ForeignKey("pipeline_history.attempt_id"), "The attempt that committed it."),
    _required("run_id", Text, "Dagster's run."),
    _required("code_version", Text, "Version of the asset's code."),
    _required("config_hash", Text, "SHA-256 of code version, options and tools: an equal hash, an equal result."),
    _required("config", JSONB, "What config_hash was made from."),
    _required("inputs", JSONB, "{asset: version} that it was made from."),
    _required("objects", JSONB, "[{key, bytes, sha256}] in the object store."),
    _required("row_count", Integer, "Rows in the asset's table."),
    _required("measures", JSONB, "What was measured while making it; numbers and short strings."),
    _required("seconds", Float, "Seconds of work."),
    _required("committed_at", DateTime(timezone=True), "When.", server_default=func.now()),
    _optional("superseded_at", DateTime(timezone=True), "When a newer version took its place; empty: current."),
    PrimaryKeyConstraint("video_id", "asset", "version"),
    Index("artifacts_current", "video_id", "asset", unique=True, postgresql_where=text("superseded_at is null")),
    comment="The catalogue: one row a committed version of (video, asset). Readers go through it.",
)

generation_configs = Table(
    "generation_configs",
    metadata,
    Column("sha256", Text, primary_key=True, comment="SHA-256 of the config as canonical JSON."),
    _required("config", JSONB, "Maker, parameters and options that moments were found with."),
    _required("first_used_at", DateTime(timezone=True), "When.", server_default=func.now()),
    comment="Each way in which moments were ever found, stored once.",
)

models = Table(
    "models",
    metadata,
    Column("key", Text, primary_key=True, comment="What the model is called in options and settings."),
    _required("kind", Text, "asr, chat or vision."),
    _optional("served_name", Text, "The name that its server knows."),
    _optional("path", Text, "Path on the server; empty: /transcribe for asr, else /v1."),
    _optional("remote_host", Text, "Host of the server, as seen from the SSH host; empty where base_url is given."),
    _optional("remote_port", Integer, "Port of the server."),
    _optional("ssh_host", Text, "SSH host that the way leads through; empty: the server is reached directly."),
    _optional("ssh_port", Integer, "Port of the SSH host."),
    _optional("ssh_user", Text, "User on the SSH host."),
    _optional("ssh_key", Text, "Path of the private key, on each machine that calls the model."),
    _optional("ssh_known_hosts", Text, "Path of the file that vouches for the SSH host."),
    _optional("base_url", Text, "Address of a hosted API, instead of remote_host."),
    _optional("api_key_env", Text, "Name of the environment variable that holds the API's key; never the key."),
    _required("supports_video", Boolean, "Whether it can watch a video."),
    _optional("context_tokens", Integer, "Longest prompt and reply together, in tokens."),
    _required("parallel", Integer, "Calls at once, over the whole installation."),
    _required("timeout_s", Float, "Longest wait for one reply, in seconds."),
    _required("defaults", JSONB, "{temperature, top_p, top_k, max_tokens} of a call that says nothing else."),
    _required("price", JSONB, "{input_per_million, output_per_million} tokens, and {per_hour}."),
    _required("updated_at", DateTime(timezone=True), "When the row was written.", server_default=func.now()),
    _required(
        "updated_by", Text, "The models file, or the database user that edited it.", server_default=text("current_user")
    ),
    CheckConstraint("kind in ('asr', 'chat', 'vision')", name="models_kind"),
    CheckConstraint("(remote_host is null) <> (base_url is null)", name="models_one_way"),
    comment="The models that can be chosen: seeded from models.yaml, edited with `moments models set`.",
)


def _versioned(name: str, *columns: Column[Any], key: tuple[str, ...] = (), comment: str) -> Table:
    return Table(
        name,
        metadata,
        _required("video_id", Text, "The video."),
        _required("version", Integer, "Version of the asset, as in artifacts."),
        *columns,
        PrimaryKeyConstraint("video_id", "version", *key),
        schema=VERSIONS,
        comment=comment,
    )


def _media_columns(*, nullable: bool = False) -> tuple[Column[Any], ...]:
    make = _optional if nullable else _required
    return (
        make("object_key", Text, "Key of the file in the object store."),
        make("bytes", BigInteger, "Size of the file in bytes."),
        make("sha256", Text, "SHA-256 of the file."),
    )


videos = _versioned(
    "videos",
    _required("url", Text, "Where it came from, without anything secret."),
    _required("site", Text, "Site it came from (youtube, web, file, …)."),
    _optional("title", Text, "Title on the site, or the file's name."),
    _optional("channel", Text, "Channel or uploader."),
    _optional("published_at", DateTime(timezone=True), "When the site published it."),
    _optional("description", Text, "Description on the site."),
    _required("duration_ms", BigInteger, "Length in milliseconds."),
    _required("width", Integer, "Pixels, as displayed."),
    _required("height", Integer, "Pixels, as displayed."),
    _required("fps", Float, "Frames a second; the mean where the rate varies."),
    _required("variable_frame_rate", Boolean, "Whether the rate varies."),
    _required("container", Text, "Container format."),
    _required("video_codec", Text, "Codec of the picture."),
    _optional("audio_codec", Text, "Codec of the sound; empty where there is none."),
    _required("has_audio", Boolean, "Whether there is a sound stream."),
    _required("streams", JSONB, "All streams: kind, codec, language."),
    _optional("captions", Text, "The video's own captions, as WebVTT or SRT."),
    _optional("captions_language", Text, "Their language."),
    _optional("captions_source", Text, "human_captions or automatic_captions."),
    *_media_columns(),
    comment="The raw videos: one row a video.",
)

audio = _versioned(
    "audio",
    _required("state", Text, "sound, silent (a stream with nothing to hear) or none (no sound stream)."),
    _required("duration_ms", BigInteger, "Length in milliseconds; 0 where there is none."),
    _optional("loudness_lufs", Float, "Integrated loudness (EBU R 128), LUFS."),
    _optional("loudness_range_lu", Float, "Loudness range (EBU R 128), LU."),
    _optional("peak_db", Float, "Peak level, dBFS."),
    _required("silences", JSONB, "Pauses: [[start_ms, end_ms], …]."),
    _required("rms_db", JSONB, "Level, dBFS, one number a second."),
    *_media_columns(nullable=True),
    comment="The sound as 16 kHz mono FLAC, with its pauses and loudness: one row a video.",
)

transcripts = _versioned(
    "transcripts",
    _required("has_speech", Boolean, "Whether anything was said."),
    _optional("language", Text, "BCP 47 tag, where known."),
    _required("source", Text, "human_captions, automatic_captions, speech_model or none."),
    _required("model", Text, "What made it."),
    _required("word_timing", Text, "measured, interpolated or none."),
    _required("full_text", Text, "All that was said."),
    _required("word_timestamps", JSONB, "[{start_ms, end_ms, text, confidence}]."),
    _required("segment_timestamps", JSONB, "[{start_ms, end_ms, text, speaker, turn_start}]."),
    comment="What was said: one row a video.",
)

transcript_segments = _versioned(
    "transcript_segments",
    _required("ordinal", Integer, "1, 2, … in time order."),
    _required("start_ms", BigInteger, "Start in milliseconds."),
    _required("end_ms", BigInteger, "End in milliseconds (exclusive)."),
    _required("text", Text, "The sentence."),
    _optional("speaker", Text, "Who, where known."),
    key=("ordinal",),
    comment="What was said, a row a sentence, with a full-text index (to_tsvector('simple', text)).",
)
Index(
    "transcript_segments_text",
    func.to_tsvector(text("'simple'"), transcript_segments.c.text),
    postgresql_using="gin",
)

scene_cuts = _versioned(
    "scene_cuts",
    _required("time_ms", BigInteger, "First frame of the new scene, in milliseconds."),
    _required("score", Float, "How strong the change is, 0..100."),
    key=("time_ms",),
    comment="Where the picture changes: one row a cut.",
)

thumbnails = _versioned(
    "thumbnails",
    _required("time_ms", BigInteger, "Time of the picture in milliseconds."),
    _required("width", Integer, "Pixels."),
    _required("height", Integer, "Pixels."),
    *_media_columns(),
    key=("time_ms",),
    comment="Small pictures of the video, a row each.",
)

moments = _versioned(
    "moments",
    _required("moment_id", Text, "Name of the moment: equal for equal video, span and title."),
    _required("ordinal", Integer, "1, 2, … in time order."),
    _required("start_ms", BigInteger, "Start in milliseconds."),
    _required("end_ms", BigInteger, "End in milliseconds (exclusive)."),
    _required("title", Text, "What it is about."),
    _required("score", Float, "0..1: how much it deserves to be watched."),
    _optional("query", Text, "What was looked for, where something was asked for."),
    _required("found_by", Text, "Maker and its version."),
    _required("generation_config", ForeignKey("generation_configs.sha256"), "How: generation_configs.sha256."),
    key=("moment_id",),
    comment="Titled spans of the video: one row a moment.",
)

clips = _versioned(
    "clips",
    _required("moment_id", Text, "The moment that it shows."),
    _required("start_ms", BigInteger, "Where the clip starts in the video, ms: clip time + start_ms = video time."),
    _required("end_ms", BigInteger, "Where it ends in the video, ms (exclusive)."),
    _required("duration_ms", BigInteger, "Length as decoded, ms."),
    _required("frames", Integer, "Frames as decoded."),
    _required("fps", Float, "Frames a second, constant."),
    _required("width", Integer, "Pixels."),
    _required("height", Integer, "Pixels."),
    *_media_columns(),
    key=("moment_id",),
    comment="A video file for each moment, padded on both sides.",
)

refined_moments = _versioned(
    "refined_moments",
    _required("moment_id", Text, "The moment that was refined."),
    _required("start_ms", BigInteger, "Refined start in milliseconds."),
    _required("end_ms", BigInteger, "Refined end in milliseconds (exclusive)."),
    _required("title", Text, "Title, as the parent's."),
    _required("refined_by", Text, "Maker and its version."),
    _required("note", Text, "What moved the boundaries, or why they stayed."),
    key=("moment_id",),
    comment="Each moment with refined boundaries; the original stays in moments.",
)

#: The table of each asset, in the order in which data flows.
ASSET_TABLES: dict[str, Table] = {
    "raw_video": videos,
    "audio": audio,
    "transcript": transcripts,
    "scene_cuts": scene_cuts,
    "thumbnails": thumbnails,
    "moments": moments,
    "clips": clips,
    "refined_moments": refined_moments,
}

MEDIA_COLUMNS = ("object_key", "bytes", "sha256")
IDENTITY_COLUMNS = ("video_id", "version")


def holds_media(table: Table) -> bool:
    """Whether each row of the table stands for a file."""
    return all(name in table.c for name in MEDIA_COLUMNS)
