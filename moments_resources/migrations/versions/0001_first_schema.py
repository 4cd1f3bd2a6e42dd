"""The first schema: intake, history, catalogue, the assets' tables and their current views."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None

_VIEWS = (
    """
create view public.videos as
select t.video_id, t.version, t.url, t.site, t.title, t.channel, t.published_at, t.description, t.duration_ms,
       (t.duration_ms / 1000.0)::double precision as duration, t.width, t.height, t.fps, t.variable_frame_rate,
       t.container, t.video_codec, t.audio_codec, t.has_audio, t.streams, t.captions, t.captions_language,
       t.captions_source, t.object_key, t.bytes, t.sha256
from versions.videos t
join public.artifacts a on a.video_id = t.video_id and a.version = t.version
where a.asset = 'raw_video' and a.superseded_at is null
""",
    """
create view public.audio as
select t.video_id, t.version, t.state, t.duration_ms, (t.duration_ms / 1000.0)::double precision as duration,
       t.loudness_lufs, t.loudness_range_lu, t.peak_db, t.silences, t.rms_db, t.object_key, t.bytes, t.sha256
from versions.audio t
join public.artifacts a on a.video_id = t.video_id and a.version = t.version
where a.asset = 'audio' and a.superseded_at is null
""",
    """
create view public.transcripts as
select t.video_id, t.version, t.has_speech, t.language, t.source, t.model, t.word_timing, t.full_text,
       t.word_timestamps, t.segment_timestamps
from versions.transcripts t
join public.artifacts a on a.video_id = t.video_id and a.version = t.version
where a.asset = 'transcript' and a.superseded_at is null
""",
    """
create view public.scene_cuts as
select t.video_id, t.version, t.time_ms, (t.time_ms / 1000.0)::double precision as time, t.score
from versions.scene_cuts t
join public.artifacts a on a.video_id = t.video_id and a.version = t.version
where a.asset = 'scene_cuts' and a.superseded_at is null
""",
    """
create view public.thumbnails as
select t.video_id, t.version, t.time_ms, (t.time_ms / 1000.0)::double precision as time, t.width, t.height,
       t.object_key, t.bytes, t.sha256
from versions.thumbnails t
join public.artifacts a on a.video_id = t.video_id and a.version = t.version
where a.asset = 'thumbnails' and a.superseded_at is null
""",
    """
create view public.moments as
select t.video_id, t.version, t.moment_id, t.ordinal, t.start_ms, (t.start_ms / 1000.0)::double precision as
       start_time, t.end_ms, (t.end_ms / 1000.0)::double precision as end_time, t.title, t.score, t.query,
       t.found_by, t.generation_config
from versions.moments t
join public.artifacts a on a.video_id = t.video_id and a.version = t.version
where a.asset = 'moments' and a.superseded_at is null
""",
    """
create view public.clips as
select t.video_id, t.version, t.moment_id, t.start_ms, (t.start_ms / 1000.0)::double precision as start_time,
       t.end_ms, (t.end_ms / 1000.0)::double precision as end_time, t.duration_ms, (t.duration_ms / 1000.0)::double
       precision as duration, t.frames, t.fps, t.width, t.height, t.object_key, t.bytes, t.sha256
from versions.clips t
join public.artifacts a on a.video_id = t.video_id and a.version = t.version
where a.asset = 'clips' and a.superseded_at is null
""",
    """
create view public.refined_moments as
select t.video_id, t.version, t.moment_id, t.start_ms, (t.start_ms / 1000.0)::double precision as start_time,
       t.end_ms, (t.end_ms / 1000.0)::double precision as end_time, t.title, t.refined_by, t.note
from versions.refined_moments t
join public.artifacts a on a.video_id = t.video_id and a.version = t.version
where a.asset = 'refined_moments' and a.superseded_at is null
""",
    """
create view public.transcript_segments as
select t.video_id, t.version, t.ordinal, t.start_ms, (t.start_ms / 1000.0)::double precision as start_time,
       t.end_ms, (t.end_ms / 1000.0)::double precision as end_time, t.text, t.speaker
from versions.transcript_segments t
join public.artifacts a on a.video_id = t.video_id and a.version = t.version
where a.asset = 'transcript' and a.superseded_at is null
""",
    """
create view public.latest_attempts as
select distinct on (coalesce(video_id, intake_id::text), asset) *
from public.pipeline_history
order by coalesce(video_id, intake_id::text), asset, attempt_id desc
""",
    """
create view public.failures as
select l.video_id, coalesce(v.title, i.name) as title, coalesce(v.url, i.url) as url, l.asset, l.class, l.cause,
       l.ended_at, l.run_id
from public.latest_attempts l
left join public.videos v on v.video_id = l.video_id
left join lateral (
    select url, name from public.url_intake
    where intake_id = l.intake_id or (l.video_id is not null and video_id = l.video_id)
    order by intake_id limit 1
) i on true
where l.outcome in ('failed', 'cancelled')
""",
    """
create view public.intake_state as
with mine as (
    select intake_id,
           bool_or(outcome in ('running', 'retrying')) as running,
           (array_agg(asset order by attempt_id desc) filter (where outcome in ('failed', 'cancelled')))[1] as asset,
           (array_agg(outcome order by attempt_id desc) filter (where outcome in ('failed', 'cancelled')))[1] as ended,
           (array_agg(class order by attempt_id desc) filter (where outcome in ('failed', 'cancelled')))[1] as class,
           (array_agg(cause order by attempt_id desc) filter (where outcome in ('failed', 'cancelled')))[1] as cause,
           count(distinct asset) filter (where outcome in ('completed', 'reused')) = 8 as done,
           max(ended_at) as ended_at
    from (
        select distinct on (intake_id, asset) * from public.pipeline_history
        where intake_id is not null order by intake_id, asset, attempt_id desc
    ) newest
    group by intake_id
), changed as (
    select video_id, max(committed_at) as at from public.artifacts group by video_id
), asked as (
    select i.*, i.options->'force' is not distinct from 'true'::jsonb or i.video_id is null as on_its_own,
           m.running, m.asset, m.ended, m.class, m.cause, m.done, m.ended_at, m.intake_id is not null as begun
    from public.url_intake i
    left join mine m using (intake_id)
), covered as (
    select i.intake_id, max(e.intake_id) as by
    from asked i
    join asked e on e.video_id = i.video_id and e.options = i.options and e.intake_id < i.intake_id and e.begun
    left join changed c on c.video_id = e.video_id
    where not i.begun and not i.on_its_own
      and case when e.ended is not null and not e.running then e.ended_at > i.submitted_at
               when e.done then c.at <= e.ended_at or e.ended_at > i.submitted_at
               else true end
    group by i.intake_id
), first as (
    select i.intake_id, min(i.intake_id) over (partition by i.video_id, i.options) as by
    from asked i
    left join covered using (intake_id)
    where not i.begun and not i.on_its_own and covered.by is null
)
select i.intake_id, i.url, i.name, i.options, i.priority, i.submitted_at, i.submitted_by, i.video_id,
       case when i.ended is not null and not i.running then i.ended
            when i.done then 'completed'
            when i.begun then 'running'
            when coalesce(covered.by, first.by, i.intake_id) <> i.intake_id then 'duplicate'
            else 'waiting' end as state,
       nullif(coalesce(covered.by, first.by), i.intake_id) as duplicate_of, i.asset as failed_asset, i.class, i.cause
from asked i
left join covered using (intake_id)
left join first using (intake_id)
""",
)


def upgrade() -> None:
    op.execute("create schema if not exists versions")
    op.execute("create schema if not exists dagster")
    op.create_table(
        "generation_configs",
        sa.Column("sha256", sa.Text(), nullable=False, comment="SHA-256 of the config as canonical JSON."),
        sa.Column(
            "config", JSONB(), nullable=False, comment="Maker, parameters and options that moments were found with."
        ),
        sa.Column(
            "first_used_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="When.",
        ),
        sa.PrimaryKeyConstraint("sha256"),
        comment="Each way in which moments were ever found, stored once.",
    )
    op.create_table(
        "pipeline_history",
        sa.Column(
            "attempt_id", sa.BigInteger(), sa.Identity(always=True), nullable=False, comment="Number of the attempt."
        ),
        sa.Column("video_id", sa.Text(), nullable=True, comment="The video, where its name is known."),
        sa.Column(
            "asset",
            sa.Text(),
            nullable=False,
            comment="The asset; raw_video, with no video_id, for a submission that was refused.",
        ),
        sa.Column(
            "attempt",
            sa.Integer(),
            nullable=False,
            comment="1, 2, … for this video and asset; an open one alone may commit.",
        ),
        sa.Column(
            "outcome", sa.Text(), nullable=False, comment="running, completed, reused, retrying, failed or cancelled."
        ),
        sa.Column(
            "class", sa.Text(), nullable=True, comment="Failure class: permanent, transient, cancelled or budget."
        ),
        sa.Column("cause", sa.Text(), nullable=True, comment="One sentence: what went wrong and what to do."),
        sa.Column("evidence", JSONB(), nullable=True, comment="Facts behind the cause."),
        sa.Column("progress", sa.Float(), nullable=True, comment="0..1 while it runs."),
        sa.Column("seconds", sa.Float(), nullable=True, comment="How long it took."),
        sa.Column(
            "started_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="When it began.",
        ),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True, comment="When it ended; empty while it runs."),
        sa.Column(
            "intake_id",
            sa.BigInteger(),
            nullable=True,
            comment="The submission that asked for it; empty for a click in the UI.",
        ),
        sa.Column("run_id", sa.Text(), nullable=True, comment="Dagster's run."),
        sa.Column("host", sa.Text(), nullable=False, comment="Machine that did the work."),
        sa.Column("pid", sa.Integer(), nullable=False, comment="Process that did the work."),
        sa.CheckConstraint("(outcome = 'running') = (ended_at is null)", name="pipeline_history_running_is_open"),
        sa.CheckConstraint(
            "class is null or class in ('permanent', 'transient', 'cancelled', 'budget')", name="pipeline_history_class"
        ),
        sa.CheckConstraint(
            "outcome in ('running', 'completed', 'reused', 'retrying', 'failed', 'cancelled')",
            name="pipeline_history_outcome",
        ),
        sa.CheckConstraint(
            "outcome not in ('retrying', 'failed', 'cancelled') or (class is not null and cause is not null)",
            name="pipeline_history_failure_is_explained",
        ),
        sa.PrimaryKeyConstraint("attempt_id"),
        sa.UniqueConstraint("video_id", "asset", "attempt", name="pipeline_history_attempt"),
        comment="Every attempt at every asset, kept for good.",
    )
    op.create_index("pipeline_history_intake", "pipeline_history", ["intake_id"], unique=False)
    op.create_table(
        "url_intake",
        sa.Column(
            "intake_id", sa.BigInteger(), sa.Identity(always=True), nullable=False, comment="Number of the submission."
        ),
        sa.Column(
            "url",
            sa.Text(),
            nullable=False,
            comment="As submitted: an http(s) URL, which may hold a signed query, or `upload:` and the key of an "
            "uploaded file.",
        ),
        sa.Column(
            "options",
            JSONB(),
            server_default=sa.text("'{}'"),
            nullable=False,
            comment="What was asked for: see moments_core/options.py.",
        ),
        sa.Column("priority", sa.Integer(), server_default=sa.text("0"), nullable=False, comment="Higher goes first."),
        sa.Column(
            "submitted_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False, comment="When."
        ),
        sa.Column(
            "submitted_by",
            sa.Text(),
            server_default=sa.text("current_user"),
            nullable=False,
            comment="Database user or program that submitted it.",
        ),
        sa.Column("name", sa.Text(), nullable=True, comment="What the submitter calls it, e.g. the file's name."),
        sa.Column(
            "video_id",
            sa.Text(),
            nullable=True,
            comment="Partition key; set once, by us, when the URL has been read. Never typed by a user.",
        ),
        sa.PrimaryKeyConstraint("intake_id"),
        comment="One row a submission. The only way in. A row's state is derived: see the view intake_state.",
    )
    op.create_index("url_intake_video_id", "url_intake", ["video_id"], unique=False)
    op.create_table(
        "audio",
        sa.Column("video_id", sa.Text(), nullable=False, comment="The video."),
        sa.Column("version", sa.Integer(), nullable=False, comment="Version of the asset, as in artifacts."),
        sa.Column(
            "state",
            sa.Text(),
            nullable=False,
            comment="sound, silent (a stream with nothing to hear) or none (no sound stream).",
        ),
        sa.Column(
            "duration_ms", sa.BigInteger(), nullable=False, comment="Length in milliseconds; 0 where there is none."
        ),
        sa.Column("loudness_lufs", sa.Float(), nullable=True, comment="Integrated loudness (EBU R 128), LUFS."),
        sa.Column("loudness_range_lu", sa.Float(), nullable=True, comment="Loudness range (EBU R 128), LU."),
        sa.Column("peak_db", sa.Float(), nullable=True, comment="Peak level, dBFS."),
        sa.Column("silences", JSONB(), nullable=False, comment="Pauses: [[start_ms, end_ms], …]."),
        sa.Column("rms_db", JSONB(), nullable=False, comment="Level, dBFS, one number a second."),
        sa.Column("object_key", sa.Text(), nullable=True, comment="Key of the file in the object store."),
        sa.Column("bytes", sa.BigInteger(), nullable=True, comment="Size of the file in bytes."),
        sa.Column("sha256", sa.Text(), nullable=True, comment="SHA-256 of the file."),
        sa.PrimaryKeyConstraint("video_id", "version"),
        schema="versions",
        comment="The sound as 16 kHz mono FLAC, with its pauses and loudness: one row a video.",
    )
    op.create_table(
        "clips",
        sa.Column("video_id", sa.Text(), nullable=False, comment="The video."),
        sa.Column("version", sa.Integer(), nullable=False, comment="Version of the asset, as in artifacts."),
        sa.Column("moment_id", sa.Text(), nullable=False, comment="The moment that it shows."),
        sa.Column(
            "start_ms",
            sa.BigInteger(),
            nullable=False,
            comment="Where the clip starts in the video, ms: clip time + start_ms = video time.",
        ),
        sa.Column("end_ms", sa.BigInteger(), nullable=False, comment="Where it ends in the video, ms (exclusive)."),
        sa.Column("duration_ms", sa.BigInteger(), nullable=False, comment="Length as decoded, ms."),
        sa.Column("frames", sa.Integer(), nullable=False, comment="Frames as decoded."),
        sa.Column("fps", sa.Float(), nullable=False, comment="Frames a second, constant."),
        sa.Column("width", sa.Integer(), nullable=False, comment="Pixels."),
        sa.Column("height", sa.Integer(), nullable=False, comment="Pixels."),
        sa.Column("object_key", sa.Text(), nullable=False, comment="Key of the file in the object store."),
        sa.Column("bytes", sa.BigInteger(), nullable=False, comment="Size of the file in bytes."),
        sa.Column("sha256", sa.Text(), nullable=False, comment="SHA-256 of the file."),
        sa.PrimaryKeyConstraint("video_id", "version", "moment_id"),
        schema="versions",
        comment="A video file for each moment, padded on both sides.",
    )
    op.create_table(
        "refined_moments",
        sa.Column("video_id", sa.Text(), nullable=False, comment="The video."),
        sa.Column("version", sa.Integer(), nullable=False, comment="Version of the asset, as in artifacts."),
        sa.Column("moment_id", sa.Text(), nullable=False, comment="The moment that was refined."),
        sa.Column("start_ms", sa.BigInteger(), nullable=False, comment="Refined start in milliseconds."),
        sa.Column("end_ms", sa.BigInteger(), nullable=False, comment="Refined end in milliseconds (exclusive)."),
        sa.Column("title", sa.Text(), nullable=False, comment="Title, as the parent's."),
        sa.Column("refined_by", sa.Text(), nullable=False, comment="Maker and its version."),
        sa.Column("note", sa.Text(), nullable=False, comment="What moved the boundaries, or why they stayed."),
        sa.PrimaryKeyConstraint("video_id", "version", "moment_id"),
        schema="versions",
        comment="Each moment with refined boundaries; the original stays in moments.",
    )
    op.create_table(
        "scene_cuts",
        sa.Column("video_id", sa.Text(), nullable=False, comment="The video."),
        sa.Column("version", sa.Integer(), nullable=False, comment="Version of the asset, as in artifacts."),
        sa.Column("time_ms", sa.BigInteger(), nullable=False, comment="First frame of the new scene, in milliseconds."),
        sa.Column("score", sa.Float(), nullable=False, comment="How strong the change is, 0..100."),
        sa.PrimaryKeyConstraint("video_id", "version", "time_ms"),
        schema="versions",
        comment="Where the picture changes: one row a cut.",
    )
    op.create_table(
        "thumbnails",
        sa.Column("video_id", sa.Text(), nullable=False, comment="The video."),
        sa.Column("version", sa.Integer(), nullable=False, comment="Version of the asset, as in artifacts."),
        sa.Column("time_ms", sa.BigInteger(), nullable=False, comment="Time of the picture in milliseconds."),
        sa.Column("width", sa.Integer(), nullable=False, comment="Pixels."),
        sa.Column("height", sa.Integer(), nullable=False, comment="Pixels."),
        sa.Column("object_key", sa.Text(), nullable=False, comment="Key of the file in the object store."),
        sa.Column("bytes", sa.BigInteger(), nullable=False, comment="Size of the file in bytes."),
        sa.Column("sha256", sa.Text(), nullable=False, comment="SHA-256 of the file."),
        sa.PrimaryKeyConstraint("video_id", "version", "time_ms"),
        schema="versions",
        comment="Small pictures of the video, a row each.",
    )
    op.create_table(
        "transcript_segments",
        sa.Column("video_id", sa.Text(), nullable=False, comment="The video."),
        sa.Column("version", sa.Integer(), nullable=False, comment="Version of the asset, as in artifacts."),
        sa.Column("ordinal", sa.Integer(), nullable=False, comment="1, 2, … in time order."),
        sa.Column("start_ms", sa.BigInteger(), nullable=False, comment="Start in milliseconds."),
        sa.Column("end_ms", sa.BigInteger(), nullable=False, comment="End in milliseconds (exclusive)."),
        sa.Column("text", sa.Text(), nullable=False, comment="The sentence."),
        sa.Column("speaker", sa.Text(), nullable=True, comment="Who, where known."),
        sa.PrimaryKeyConstraint("video_id", "version", "ordinal"),
        schema="versions",
        comment="What was said, a row a sentence, with a full-text index (to_tsvector('simple', text)).",
    )
    op.create_index(
        "transcript_segments_text",
        "transcript_segments",
        [sa.literal_column("to_tsvector('simple', text)")],
        unique=False,
        schema="versions",
        postgresql_using="gin",
    )
    op.create_table(
        "transcripts",
        sa.Column("video_id", sa.Text(), nullable=False, comment="The video."),
        sa.Column("version", sa.Integer(), nullable=False, comment="Version of the asset, as in artifacts."),
        sa.Column("has_speech", sa.Boolean(), nullable=False, comment="Whether anything was said."),
        sa.Column("language", sa.Text(), nullable=True, comment="BCP 47 tag, where known."),
        sa.Column(
            "source", sa.Text(), nullable=False, comment="human_captions, automatic_captions, speech_model or none."
        ),
        sa.Column("model", sa.Text(), nullable=False, comment="What made it."),
        sa.Column("word_timing", sa.Text(), nullable=False, comment="measured, interpolated or none."),
        sa.Column("full_text", sa.Text(), nullable=False, comment="All that was said."),
        sa.Column("word_timestamps", JSONB(), nullable=False, comment="[{start_ms, end_ms, text, confidence}]."),
        sa.Column(
            "segment_timestamps", JSONB(), nullable=False, comment="[{start_ms, end_ms, text, speaker, turn_start}]."
        ),
        sa.PrimaryKeyConstraint("video_id", "version"),
        schema="versions",
        comment="What was said: one row a video.",
    )
    op.create_table(
        "videos",
        sa.Column("video_id", sa.Text(), nullable=False, comment="The video."),
        sa.Column("version", sa.Integer(), nullable=False, comment="Version of the asset, as in artifacts."),
        sa.Column("url", sa.Text(), nullable=False, comment="Where it came from; what is secret in it is `***`."),
        sa.Column("site", sa.Text(), nullable=False, comment="Site it came from (youtube, web, file, …)."),
        sa.Column("title", sa.Text(), nullable=True, comment="Title on the site, or the file's name."),
        sa.Column("channel", sa.Text(), nullable=True, comment="Channel or uploader."),
        sa.Column("published_at", sa.DateTime(timezone=True), nullable=True, comment="When the site published it."),
        sa.Column("description", sa.Text(), nullable=True, comment="Description on the site."),
        sa.Column("duration_ms", sa.BigInteger(), nullable=False, comment="Length in milliseconds."),
        sa.Column("width", sa.Integer(), nullable=False, comment="Pixels, as displayed."),
        sa.Column("height", sa.Integer(), nullable=False, comment="Pixels, as displayed."),
        sa.Column("fps", sa.Float(), nullable=False, comment="Frames a second; the mean where the rate varies."),
        sa.Column("variable_frame_rate", sa.Boolean(), nullable=False, comment="Whether the rate varies."),
        sa.Column("container", sa.Text(), nullable=False, comment="Container format."),
        sa.Column("video_codec", sa.Text(), nullable=False, comment="Codec of the picture."),
        sa.Column("audio_codec", sa.Text(), nullable=True, comment="Codec of the sound; empty where there is none."),
        sa.Column("has_audio", sa.Boolean(), nullable=False, comment="Whether there is a sound stream."),
        sa.Column("streams", JSONB(), nullable=False, comment="All streams: kind, codec, language."),
        sa.Column("captions", sa.Text(), nullable=True, comment="The video's own captions, as WebVTT or SRT."),
        sa.Column("captions_language", sa.Text(), nullable=True, comment="Their language."),
        sa.Column("captions_source", sa.Text(), nullable=True, comment="human_captions or automatic_captions."),
        sa.Column("object_key", sa.Text(), nullable=False, comment="Key of the file in the object store."),
        sa.Column("bytes", sa.BigInteger(), nullable=False, comment="Size of the file in bytes."),
        sa.Column("sha256", sa.Text(), nullable=False, comment="SHA-256 of the file."),
        sa.PrimaryKeyConstraint("video_id", "version"),
        schema="versions",
        comment="The raw videos: one row a video.",
    )
    op.create_table(
        "artifacts",
        sa.Column("video_id", sa.Text(), nullable=False, comment="The video."),
        sa.Column("asset", sa.Text(), nullable=False, comment="The asset."),
        sa.Column("version", sa.Integer(), nullable=False, comment="1, 2, … for this video and asset."),
        sa.Column("attempt_id", sa.BigInteger(), nullable=False, comment="The attempt that committed it."),
        sa.Column("run_id", sa.Text(), nullable=False, comment="Dagster's run."),
        sa.Column("code_version", sa.Text(), nullable=False, comment="Version of the asset's code."),
        sa.Column(
            "config_hash",
            sa.Text(),
            nullable=False,
            comment="SHA-256 of code version, options and tools: an equal hash, an equal result.",
        ),
        sa.Column("config", JSONB(), nullable=False, comment="What config_hash was made from."),
        sa.Column("inputs", JSONB(), nullable=False, comment="{asset: version} that it was made from."),
        sa.Column("objects", JSONB(), nullable=False, comment="[{key, bytes, sha256}] in the object store."),
        sa.Column("row_count", sa.Integer(), nullable=False, comment="Rows in the asset's table."),
        sa.Column(
            "measures", JSONB(), nullable=False, comment="What was measured while making it; numbers and short strings."
        ),
        sa.Column(
            "previews",
            JSONB(),
            server_default=sa.text("'{}'"),
            nullable=False,
            comment="{name: Markdown} for the UI.",
        ),
        sa.Column("seconds", sa.Float(), nullable=False, comment="Seconds of work."),
        sa.Column(
            "committed_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False, comment="When."
        ),
        sa.Column(
            "superseded_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="When a newer version took its place; empty: current.",
        ),
        sa.ForeignKeyConstraint(
            ["attempt_id"],
            ["pipeline_history.attempt_id"],
        ),
        sa.PrimaryKeyConstraint("video_id", "asset", "version"),
        comment="The catalogue: one row a committed version of (video, asset). Readers go through it.",
    )
    op.create_index(
        "artifacts_current",
        "artifacts",
        ["video_id", "asset"],
        unique=True,
        postgresql_where=sa.text("superseded_at is null"),
    )
    op.create_table(
        "moments",
        sa.Column("video_id", sa.Text(), nullable=False, comment="The video."),
        sa.Column("version", sa.Integer(), nullable=False, comment="Version of the asset, as in artifacts."),
        sa.Column(
            "moment_id", sa.Text(), nullable=False, comment="Name of the moment: equal for equal video, span and title."
        ),
        sa.Column("ordinal", sa.Integer(), nullable=False, comment="1, 2, … in time order."),
        sa.Column("start_ms", sa.BigInteger(), nullable=False, comment="Start in milliseconds."),
        sa.Column("end_ms", sa.BigInteger(), nullable=False, comment="End in milliseconds (exclusive)."),
        sa.Column("title", sa.Text(), nullable=False, comment="What it is about."),
        sa.Column("score", sa.Float(), nullable=False, comment="0..1: how much it deserves to be watched."),
        sa.Column("query", sa.Text(), nullable=True, comment="What was looked for, where something was asked for."),
        sa.Column("found_by", sa.Text(), nullable=False, comment="Maker and its version."),
        sa.Column("generation_config", sa.Text(), nullable=False, comment="How: generation_configs.sha256."),
        sa.ForeignKeyConstraint(
            ["generation_config"],
            ["generation_configs.sha256"],
        ),
        sa.PrimaryKeyConstraint("video_id", "version", "moment_id"),
        schema="versions",
        comment="Titled spans of the video: one row a moment.",
    )
    for statement in _VIEWS:
        op.execute(statement)
