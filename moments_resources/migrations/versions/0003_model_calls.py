"""Calls of models: the prompts that were sent, every call with its reply, and what a server takes in at once."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    _what_a_server_takes()
    _prompts()
    _model_calls()
    op.execute(
        "create sequence public.turn_tickets as integer cycle"
    )  # the order in queues: moments_resources/turns.py


def _what_a_server_takes() -> None:
    longest = "asr: longest sound of one call, in seconds; empty: 300."
    op.add_column("models", sa.Column("longest_s", sa.Float(), nullable=True, comment=longest))
    comment = "How it is shown a clip: url or inline; empty: by URL where the store can sign one."
    op.add_column("models", sa.Column("video_by", sa.Text(), nullable=True, comment=comment))
    op.create_check_constraint("models_video_by", "models", "video_by is null or video_by in ('url', 'inline')")


def _prompts() -> None:
    op.create_table(
        "prompts",
        sa.Column("sha256", sa.Text(), nullable=False, comment="SHA-256 of the text."),
        sa.Column("name", sa.Text(), nullable=False, comment="What it is for."),
        sa.Column("version", sa.Text(), nullable=False, comment="Raised with every change of the text."),
        sa.Column("text", sa.Text(), nullable=False, comment="The prompt, with its places to fill."),
        _moment("first_used_at", "When."),
        sa.PrimaryKeyConstraint("sha256"),
        comment="Each prompt that was ever sent, stored once.",
    )


def _model_calls() -> None:
    op.create_table(
        "model_calls",
        sa.Column("call_id", sa.BigInteger(), sa.Identity(always=True), nullable=False, comment="Number of the call."),
        sa.Column("video_id", sa.Text(), nullable=False, comment="The video."),
        sa.Column("asset", sa.Text(), nullable=False, comment="The asset that it was made for."),
        sa.Column("attempt_id", sa.BigInteger(), nullable=False, comment="The attempt that made it."),
        sa.Column("model", sa.Text(), nullable=False, comment="Key of the model."),
        sa.Column(
            "request_sha256",
            sa.Text(),
            nullable=False,
            comment="SHA-256 of all that decides the reply: an equal hash, an equal question.",
        ),
        sa.Column("prompt_sha256", sa.Text(), nullable=True, comment="The prompt."),
        sa.Column(
            "outcome",
            sa.Text(),
            nullable=False,
            comment="open (waits, is on its way, or its process died), replied, refused (could not be used) or failed.",
        ),
        _moment("started_at", "When it was sent; while it is open: when it was asked for."),
        sa.Column(
            "seconds",
            sa.Float(),
            nullable=True,
            comment="From sending it to its end; waiting for a turn is not counted.",
        ),
        sa.Column("status", sa.Integer(), nullable=True, comment="HTTP status of the answer, where there was one."),
        sa.Column("class", sa.Text(), nullable=True, comment="Failure class of a call that failed or was refused."),
        sa.Column("cause", sa.Text(), nullable=True, comment="One sentence: what went wrong."),
        sa.Column(
            "tokens_in", sa.Integer(), nullable=True, comment="Tokens of the prompt, as the server counted them."
        ),
        sa.Column(
            "tokens_out", sa.Integer(), nullable=True, comment="Tokens of the reply, as the server counted them."
        ),
        sa.Column(
            "cost",
            sa.Float(),
            server_default=sa.text("0"),
            nullable=False,
            comment="By the model's price, in its currency.",
        ),
        sa.Column(
            "reply",
            sa.Text(),
            nullable=True,
            comment="The body of the answer as it came, stored before anybody read it.",
        ),
        sa.CheckConstraint("outcome in ('open', 'replied', 'refused', 'failed')", name="model_calls_outcome"),
        sa.CheckConstraint("outcome <> 'replied' or reply is not null", name="model_calls_replies_are_kept"),
        sa.CheckConstraint(
            "outcome not in ('refused', 'failed') or (class is not null and cause is not null)",
            name="model_calls_failure_is_explained",
        ),
        sa.ForeignKeyConstraint(["attempt_id"], ["pipeline_history.attempt_id"]),
        sa.ForeignKeyConstraint(["prompt_sha256"], ["prompts.sha256"]),
        sa.PrimaryKeyConstraint("call_id"),
        comment="Every call of a model. A retry of a step reuses the replies that came before its asset was committed.",
    )
    op.create_index("model_calls_request", "model_calls", ["video_id", "asset", "request_sha256"])
    op.create_index("model_calls_model", "model_calls", ["model", "started_at"])


def _moment(name: str, comment: str) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False, comment=comment)
