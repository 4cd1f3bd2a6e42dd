"""The models registry: one row a model that can be chosen."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "models",
        sa.Column("key", sa.Text(), nullable=False, comment="What the model is called in options and settings."),
        sa.Column("kind", sa.Text(), nullable=False, comment="asr, chat or vision."),
        sa.Column("served_name", sa.Text(), nullable=True, comment="The name that its server knows."),
        sa.Column(
            "path", sa.Text(), nullable=True, comment="Path on the server; empty: /transcribe for asr, else /v1."
        ),
        sa.Column(
            "remote_host",
            sa.Text(),
            nullable=True,
            comment="Host of the server, as seen from the SSH host; empty where base_url is given.",
        ),
        sa.Column("remote_port", sa.Integer(), nullable=True, comment="Port of the server."),
        sa.Column(
            "ssh_host",
            sa.Text(),
            nullable=True,
            comment="SSH host that the way leads through; empty: the server is reached directly.",
        ),
        sa.Column("ssh_port", sa.Integer(), nullable=True, comment="Port of the SSH host."),
        sa.Column("ssh_user", sa.Text(), nullable=True, comment="User on the SSH host."),
        sa.Column(
            "ssh_key",
            sa.Text(),
            nullable=True,
            comment="Path of the private key, on each machine that calls the model.",
        ),
        sa.Column(
            "ssh_known_hosts", sa.Text(), nullable=True, comment="Path of the file that vouches for the SSH host."
        ),
        sa.Column("base_url", sa.Text(), nullable=True, comment="Address of a hosted API, instead of remote_host."),
        sa.Column(
            "api_key_env",
            sa.Text(),
            nullable=True,
            comment="Name of the environment variable that holds the API's key; never the key.",
        ),
        sa.Column("supports_video", sa.Boolean(), nullable=False, comment="Whether it can watch a video."),
        sa.Column(
            "context_tokens", sa.Integer(), nullable=True, comment="Longest prompt and reply together, in tokens."
        ),
        sa.Column("parallel", sa.Integer(), nullable=False, comment="Calls at once, over the whole installation."),
        sa.Column("timeout_s", sa.Float(), nullable=False, comment="Longest wait for one reply, in seconds."),
        sa.Column(
            "defaults",
            JSONB(),
            nullable=False,
            comment="{temperature, top_p, top_k, max_tokens} of a call that says nothing else.",
        ),
        sa.Column(
            "price", JSONB(), nullable=False, comment="{input_per_million, output_per_million} tokens, and {per_hour}."
        ),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="When the row was written.",
        ),
        sa.Column(
            "updated_by",
            sa.Text(),
            server_default=sa.text("current_user"),
            nullable=False,
            comment="The models file, or the database user that edited it.",
        ),
        sa.CheckConstraint("kind in ('asr', 'chat', 'vision')", name="models_kind"),
        sa.CheckConstraint("(remote_host is null) <> (base_url is null)", name="models_one_way"),
        sa.PrimaryKeyConstraint("key"),
        comment="The models that can be chosen: seeded from models.yaml, edited with `moments models set`.",
    )
