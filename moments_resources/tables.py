"""The lakehouse tables: their columns, types and meaning, declared once.

Base tables of the assets live in schema `versions` and hold every version; views of the same name in schema
`public` show the current one (views.py). What is not versioned lives in `public`. Dagster's own storage has the
schema `dagster`. The comments here become the column schema in the UI and docs/tables.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    DateTime,
    DefaultClause,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
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
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.schema import SchemaItem

from moments_resources.asset_tables import (
    BY_ASSET,
    IDENTITY_COLUMNS,
    MOMENTS,
    TRANSCRIPT_SEGMENTS,
    URL_INTAKE,
    AssetTable,
)

VERSIONS = "versions"

metadata = MetaData()


def _required(name: str, kind: Any, comment: str, **more: Any) -> Column[Any]:
    return Column(name, kind, nullable=False, comment=comment, **more)


def _optional(name: str, kind: Any, comment: str) -> Column[Any]:
    return Column(name, kind, nullable=True, comment=comment)


_SQL_TYPES: dict[str, Any] = {
    "text": Text,
    "integer": Integer,
    "bigint": BigInteger,
    "float": Float,
    "boolean": Boolean,
    "json": JSONB,
    "time": DateTime(timezone=True),
}


def _declared(table: AssetTable, more: Mapping[str, Any] | None = None) -> list[Column[Any]]:
    """Its columns. `more`: what a column has beside name, type and comment: an identity or its default."""
    added = {name: [item] for name, item in (more or {}).items()}
    return [
        Column(
            column.name,
            _SQL_TYPES[column.kind],
            *added.get(column.name, []),
            nullable=column.nullable,
            comment=column.comment,
        )
        for column in table.columns
    ]


url_intake = Table(
    "url_intake",
    metadata,
    *_declared(
        URL_INTAKE,
        {
            "intake_id": Identity(always=True),
            "options": DefaultClause(text("'{}'")),
            "priority": DefaultClause(text("0")),
            "submitted_at": DefaultClause(func.now()),
            "submitted_by": DefaultClause(text("current_user")),
            "settled": DefaultClause(text("false")),
        },
    ),
    PrimaryKeyConstraint("intake_id"),
    Index("url_intake_video_id", "video_id", "intake_id"),
    Index("url_intake_new", "intake_id", postgresql_where=text("registered_at is null and not settled")),
    Index("url_intake_open", text("priority desc"), "intake_id", postgresql_where=text("not settled")),
    Index("url_intake_listed_in", "listed_in"),
    comment=URL_INTAKE.comment,
)

pipeline_history = Table(
    "pipeline_history",
    metadata,
    Column("attempt_id", BigInteger, Identity(always=True), primary_key=True, comment="Number of the attempt."),
    _optional("video_id", Text, "The video, where its name is known."),
    _required("asset", Text, "The asset; raw_video, with no video_id, for a submission that was refused."),
    _required("attempt", Integer, "1, 2, … for this video and asset; an open one alone may commit."),
    _required(
        "outcome",
        Text,
        "running, completed, reused, listed (the address led to a list of videos), retrying, failed or cancelled.",
    ),
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
    _optional(
        "lease_until", DateTime(timezone=True), "Until when a running attempt may commit; its process renews it."
    ),
    _optional(
        "try_again_at", DateTime(timezone=True), "When a failed attempt will be followed by another; empty: never."
    ),
    UniqueConstraint("video_id", "asset", "attempt", name="pipeline_history_attempt"),
    CheckConstraint(
        "outcome in ('running', 'completed', 'reused', 'listed', 'retrying', 'failed', 'cancelled')",
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
    CheckConstraint("try_again_at is null or outcome = 'failed'", name="pipeline_history_failed_alone_is_tried_again"),
    Index("pipeline_history_intake", "intake_id"),
    Index("pipeline_history_again", "intake_id", postgresql_where=text("try_again_at is not null")),
    Index("pipeline_history_open", "run_id", postgresql_where=text("outcome in ('running', 'retrying')")),
    Index("pipeline_history_bad", "ended_at", postgresql_where=text("outcome in ('failed', 'cancelled')")),
    comment="Every attempt at every asset, kept for good.",
)

workers = Table(
    "workers",
    metadata,
    _required("run_id", Text, "Dagster's run."),
    _required("host", Text, "Machine that it is on."),
    _required("machine", Text, "Whose process numbers these are: the machine's start, and the container."),
    _required("pid", Integer, "Its process."),
    _required("process_started", Float, "Start of the process, seconds since the machine's."),
    _required("beat", BigInteger, "Rises every few seconds while the process lives.", server_default=text("0")),
    _required("began_at", DateTime(timezone=True), "When the process took the run.", server_default=func.now()),
    _required("beat_at", DateTime(timezone=True), "When beat rose last.", server_default=func.now()),
    _optional("stop_reason", Text, "Why it is to stop; empty: it is not."),
    PrimaryKeyConstraint("run_id", "host", "pid"),
    comment="The processes that take a run through its steps; one leaves when its run is over.",
)

cancellations = Table(
    "cancellations",
    metadata,
    Column("cancellation_id", BigInteger, Identity(always=True), primary_key=True, comment="Number."),
    _optional("video_id", Text, "The video; empty where it has no name."),
    _required("cancelled_at", DateTime(timezone=True), "When.", server_default=func.now()),
    _required("cancelled_by", Text, "Program or database user that asked for it."),
    _required("run_ids", ARRAY(Text), "Dagster's runs that may begin nothing more."),
    _required("intake_ids", ARRAY(BigInteger), "Submissions that may begin nothing more."),
    Index("cancellations_video_id", "video_id"),
    comment="What was stopped on request: no attempt begins for these runs and submissions.",
)

tombstones = Table(
    "tombstones",
    metadata,
    Column("video_id", Text, primary_key=True, comment="The video."),
    _required("deleted_at", DateTime(timezone=True), "When its removal was asked for.", server_default=func.now()),
    _required("deleted_by", Text, "Program or database user that asked for it."),
    _optional(
        "verified_at",
        DateTime(timezone=True),
        "When nothing of it was left; empty: the removal broke off, repeat it.",
    ),
    comment="Videos that were taken down: they do not come back unless a submission says `revive`.",
)

garbage = Table(
    "garbage",
    metadata,
    Column("key", Text, primary_key=True, comment="Key in the object store."),
    _required(
        "found_at", DateTime(timezone=True), "When it was first seen to belong to nothing.", server_default=func.now()
    ),
    comment="Objects that no row names: removed by retention when they are still here a while later.",
)

spending = Table(
    "spending",
    metadata,
    Column("day", Date, primary_key=True, comment="Day, UTC."),
    _required("seconds", Float, "Of model calls.", server_default=text("0")),
    _required("tokens", BigInteger, "In and out.", server_default=text("0")),
    _required("cost", Float, "In the prices' currency.", server_default=text("0")),
    comment="What model calls took, a row a day; stays when a video is taken down.",
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
    _required("previews", JSONB, "{name: Markdown} for the UI.", server_default=text("'{}'")),
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
    _optional("video_by", Text, "How it is shown a clip: url or inline; empty: by URL where the store can sign one."),
    _optional("longest_s", Float, "asr: longest sound of one call, in seconds; empty: 300."),
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
    CheckConstraint("video_by is null or video_by in ('url', 'inline')", name="models_video_by"),
    comment="The models that can be chosen: seeded from models.yaml, edited with `moments models set`.",
)

prompts = Table(
    "prompts",
    metadata,
    Column("sha256", Text, primary_key=True, comment="SHA-256 of the text."),
    _required("name", Text, "What it is for."),
    _required("version", Text, "Raised with every change of the text."),
    _required("text", Text, "The prompt, with its places to fill."),
    _required("first_used_at", DateTime(timezone=True), "When.", server_default=func.now()),
    comment="Each prompt that was ever sent, stored once.",
)

model_calls = Table(
    "model_calls",
    metadata,
    Column("call_id", BigInteger, Identity(always=True), primary_key=True, comment="Number of the call."),
    _required("video_id", Text, "The video."),
    _required("asset", Text, "The asset that it was made for."),
    _required("attempt_id", ForeignKey("pipeline_history.attempt_id"), "The attempt that made it."),
    _required("model", Text, "Key of the model."),
    _required("request_sha256", Text, "SHA-256 of all that decides the reply: an equal hash, an equal question."),
    _optional("prompt_sha256", ForeignKey("prompts.sha256"), "The prompt."),
    _required(
        "outcome",
        Text,
        "open (waits, is on its way, or its process died), replied, refused (could not be used) or failed.",
    ),
    _required(
        "started_at",
        DateTime(timezone=True),
        "When it was sent; before that: when it was asked for.",
        server_default=func.now(),
    ),
    _optional("seconds", Float, "From sending it to its end; waiting for a turn is not counted."),
    _optional("status", Integer, "HTTP status of the answer, where there was one."),
    Column("class", Text, nullable=True, comment="Failure class of a call that failed or was refused."),
    _optional("cause", Text, "One sentence: what went wrong."),
    _optional("tokens_in", Integer, "Tokens of the prompt, as the server counted them."),
    _optional("tokens_out", Integer, "Tokens of the reply, as the server counted them."),
    _required("cost", Float, "By the model's price, in its currency.", server_default=text("0")),
    _optional("reply", Text, "The body of the answer as it came, stored before anybody read it."),
    *(
        _required(
            f"reserved_{name}",
            kind,
            f"The most that it may take, reserved until it is known what it took: {name}.",
            server_default=text("0"),
        )
        for name, kind in (("seconds", Float), ("tokens", BigInteger), ("cost", Float))
    ),
    _required(
        "sent",
        Boolean,
        "Set when it goes out: if nobody hears of its end, it has taken what was reserved.",
        server_default=text("false"),
    ),
    CheckConstraint("outcome in ('open', 'replied', 'refused', 'failed')", name="model_calls_outcome"),
    CheckConstraint("outcome <> 'replied' or reply is not null", name="model_calls_replies_are_kept"),
    CheckConstraint(
        "outcome not in ('refused', 'failed') or (class is not null and cause is not null)",
        name="model_calls_failure_is_explained",
    ),
    Index("model_calls_request", "video_id", "asset", "request_sha256"),
    Index("model_calls_model", "model", "started_at"),
    Index("model_calls_open", "attempt_id", postgresql_where=text("outcome = 'open'")),
    Index("model_calls_uncounted", "started_at", postgresql_where=text("outcome <> 'open' and reserved_tokens > 0")),
    comment="Every call of a model. A retry of a step reuses the replies that came before its asset was committed.",
)


def _versioned(table: AssetTable, *constraints: SchemaItem) -> Table:
    return Table(
        table.name,
        metadata,
        _required("video_id", Text, "The video."),
        _required("version", Integer, "Version of the asset, as in artifacts."),
        *_declared(table),
        PrimaryKeyConstraint(*IDENTITY_COLUMNS, *table.key),
        *constraints,
        schema=VERSIONS,
        comment=table.comment,
    )


transcript_segments = _versioned(TRANSCRIPT_SEGMENTS)
Index(
    "transcript_segments_text",
    func.to_tsvector(text("'simple'"), transcript_segments.c.text),
    postgresql_using="gin",
)

#: The SQL table of each asset, in the order in which data flows.
ASSET_TABLES: dict[str, Table] = {
    asset: _versioned(
        table,
        *([ForeignKeyConstraint(["generation_config"], ["generation_configs.sha256"])] if table is MOMENTS else ()),
    )
    for asset, table in BY_ASSET.items()
}
