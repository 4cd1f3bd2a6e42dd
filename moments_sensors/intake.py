"""What starts work: each submission becomes a partition and a run of the one job."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import dagster as dg

from moments_assets.jobs import process_video
from moments_assets.partitions import INTAKE_TAG, videos
from moments_core.errors import MomentsError, SourceError
from moments_core.options import Options, read_options

if TYPE_CHECKING:
    from moments_resources.intake import Intake, IntakeRow

BATCH = 100  # run keys are looked up one by one, so a tick stays short


@dataclass(frozen=True)
class Accepted:
    """A submission that can be worked on."""

    row: IntakeRow
    video_id: str
    options: Options

    @property
    def run_config(self) -> dict[str, object]:
        """What the submission asks for, as the Launchpad would say it."""
        return {"resources": {"run_options": {"config": self.options.model_dump(exclude_none=True)}}}

    @property
    def tags(self) -> dict[str, str]:
        return {INTAKE_TAG: str(self.row.intake_id), "dagster/priority": str(self.row.priority)}

    def run_request(self) -> dg.RunRequest:
        return dg.RunRequest(
            run_key=f"intake-{self.row.intake_id}",
            partition_key=self.video_id,
            run_config=self.run_config,
            tags=self.tags,
        )


@dataclass(frozen=True)
class Refused:
    """A submission that can't."""

    row: IntakeRow
    error: MomentsError


def decide(row: IntakeRow) -> Accepted | Refused:
    """Whether a row can be worked on. A row that came by SQL is as hostile as any other input."""
    from moments_resources.intake import name_video

    try:
        video_id = name_video(row.url)
        if row.video_id not in {None, video_id}:
            raise SourceError("The column video_id is filled by moments: leave it empty.", found=row.video_id)
        return Accepted(row, video_id, read_options(row.options))
    except MomentsError as error:
        return Refused(row, error)


def take_in(intake: Intake, rows: Sequence[IntakeRow]) -> list[Accepted]:
    """Name the rows that can be worked on, and keep the reason of those that can't."""
    accepted = []
    for decision in map(decide, rows):
        if isinstance(decision, Refused):
            intake.refuse(decision.row, decision.error)
        else:
            intake.name_row(decision.row, decision.video_id)
            accepted.append(decision)
    return accepted


def tick(intake: Intake) -> dg.SensorResult | dg.SkipReason:
    """What one look at the intake table asks for."""
    accepted = take_in(intake, intake.waiting(BATCH))
    if not accepted:
        return dg.SkipReason("No submission is waiting.")
    return dg.SensorResult(
        run_requests=[item.run_request() for item in accepted],
        # Partitions are added before the runs are asked for, so no run meets an unknown one.
        dynamic_partitions_requests=[videos.build_add_request(sorted({item.video_id for item in accepted}))],
    )


@dg.sensor(
    name="intake",
    job=process_video,
    minimum_interval_seconds=5,
    default_status=dg.DefaultSensorStatus.RUNNING,
    required_resource_keys={"intake"},
    description="Asks for a run for every row of url_intake that nobody has started.",
)
def intake_sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
    return tick(context.resources.intake)
