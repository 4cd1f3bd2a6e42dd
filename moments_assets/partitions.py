"""The one axis: a video is a partition. Never one partition a moment; Dagster is at ease to about 100,000."""

from __future__ import annotations

import dagster as dg

videos = dg.DynamicPartitionsDefinition(name="videos")

INTAKE_TAG = "moments/intake_id"  # on a run: the submission that asked for it
