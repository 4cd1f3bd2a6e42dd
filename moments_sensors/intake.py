"""What starts work: each submission becomes a partition and a run of the one job.

Nothing here keeps state: what is registered, begun, failed or over stands in the tables, and a tick that broke off at
any point, or came twice, is made good by the next one.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import dagster as dg
from dagster._core.storage.tags import PARTITION_NAME_TAG

from moments_assets.jobs import process_video
from moments_assets.partitions import INTAKE_TAG, videos
from moments_core.errors import MomentsError, SourceError
from moments_core.options import Options, read_options
from moments_sensors.reaper import end_of, intake_of

if TYPE_CHECKING:
    from moments_resources.history import History
    from moments_resources.intake import Intake, IntakeRow, Unfinished
    from moments_resources.tombstones import Tombstone

IN_HAND = 40  # runs that wait or work at once, three times as many as are at work; the rest waits in our own table
_REGISTER_S = 15.0  # of a tick, which Dagster ends after 60 s; naming 100 addresses takes about half a second
_BATCH = 1000  # a statement of Dagster's storage opens a connection of its own

ANOTHER_TRY = "moments/another_try"  # on a run: it is not the first of its submission

UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


@dataclass(frozen=True)
class Accepted:
    """A submission that can be worked on."""

    row: IntakeRow
    video_id: str
    options: Options

    @property
    def run_config(self) -> dict[str, object]:
        """What the submission asks for, as the Launchpad would say it."""
        return {"resources": {"run_options": {"config": self.options.of_a_run}}}

    @property
    def revives(self) -> bool:
        """Whether it brings its video back. An entry of a list never does: nobody has named that video."""
        return bool(self.options.revive) and self.row.listed_in is None

    @property
    def tags(self) -> dict[str, str]:
        # With the partition's tag Dagster looks for no partition: a connection less for each run of a tick, and a
        # video that is taken down meanwhile does not fail the whole tick.
        return {
            INTAKE_TAG: str(self.row.intake_id),
            "dagster/priority": str(self.row.priority),
            PARTITION_NAME_TAG: self.video_id,
        }

    def run_request(self, run_key: str) -> dg.RunRequest:
        """A run of the job."""
        return dg.RunRequest(
            run_key=run_key,
            partition_key=self.video_id,
            run_config=self.run_config,
            tags=self.tags,
        )

    def another_try(self, unfinished: Unfinished) -> dg.RunRequest:
        """A run of what is missing: before first runs, for it has waited already.

        Of the whole job: what stands is kept, and what another submission has made otherwise meanwhile is not, so that
        all fits. Only who wants everything made anew would get it twice: there the missing assets alone are asked for.
        The number of failed runs in the key: each try is asked for once, also by a tick that is repeated.
        """
        tags = self.tags | {ANOTHER_TRY: "yes", "dagster/priority": str(self.row.priority + 1)}
        run = self.run_request(f"again-{self.row.intake_id}-{unfinished.tries}")
        missing = [dg.AssetKey(asset) for asset in unfinished.missing] if self.options.force else None
        return run._replace(tags=tags, asset_selection=missing)


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


def admit(decision: Accepted | Refused, taken_down: Mapping[str, Tombstone]) -> Accepted | Refused:
    """The decision, with the videos in mind that were taken down: none comes back by accident."""
    if isinstance(decision, Refused) or decision.video_id not in taken_down:
        return decision
    refusal = taken_down[decision.video_id].refusal(revive=decision.revives)
    return Refused(decision.row, refusal) if refusal else decision


def take_in(intake: Intake, rows: Sequence[IntakeRow]) -> list[Accepted]:
    """Name the rows that can be worked on, and keep the reason of those that can't."""
    decisions = [decide(row) for row in rows]
    taken_down = intake.taken_down({item.video_id for item in decisions if isinstance(item, Accepted)})
    accepted = []
    for decision in [admit(item, taken_down) for item in decisions]:
        if isinstance(decision, Refused):
            intake.refuse(decision.row, decision.error)
        else:
            accepted.append(decision)
    names = {item.row.intake_id: item.video_id for item in accepted}
    named = intake.name_rows(names, revived={item.video_id for item in accepted if item.revives})
    return [item for item in accepted if item.row.intake_id in named]


def register(intake: Intake, instance: dg.DagsterInstance, *, seconds: float = _REGISTER_S) -> int:
    """Make the partitions of new submissions, as many as fit into `seconds`; says how many submissions.

    The mark comes last: rows of a tick that broke off are taken in again, which changes nothing.
    """
    until, count = time.monotonic() + seconds, 0
    while time.monotonic() < until and (rows := intake.unregistered(_BATCH)):
        accepted = take_in(intake, rows)
        # One statement; a sensor's result would ask for each key.
        instance.add_dynamic_partitions(str(videos.name), sorted({item.video_id for item in accepted}))
        intake.mark_registered([item.row.intake_id for item in accepted])
        count += len(accepted)
    return count


def first_runs(intake: Intake, history: History, instance: dg.DagsterInstance) -> list[dg.RunRequest]:
    """Runs for submissions that wait, up to what may be in hand at once."""
    in_hand = InHand.look(instance)
    rows = intake.waiting(max(0, IN_HAND - in_hand.first_runs), but=in_hand.intake_ids)
    lost = end_lost(history, instance, rows)
    accepted = take_in(intake, [row for row in rows if row.intake_id not in lost])
    return [item.run_request(f"intake-{item.row.intake_id}") for item in accepted]


@dataclass(frozen=True)
class InHand:
    """The submissions for which a run waits or works; whoever asked for it, and under whatever run key."""

    intake_ids: list[int]
    first_runs: int
    other_tries: int

    @classmethod
    def look(cls, instance: dg.DagsterInstance) -> InHand:
        runs = [run for run in instance.get_runs(dg.RunsFilter(statuses=UNFINISHED)) if intake_of(run) is not None]
        again = sum(ANOTHER_TRY in run.tags for run in runs)
        intake_ids = [intake_id for run in runs if (intake_id := intake_of(run)) is not None]
        return cls(intake_ids, len(runs) - again, again)


def end_lost(history: History, instance: dg.DagsterInstance, rows: Sequence[IntakeRow]) -> set[int]:
    """Give submissions an end whose run is over without a single attempt: its run key never fires again.

    Says which they are: a run may have been killed while it loaded its code, or cancelled in the queue.
    """
    if not rows:
        return set()
    numbers = [str(row.intake_id) for row in rows]
    over = [run for run in instance.get_runs(dg.RunsFilter(tags={INTAKE_TAG: numbers})) if run.is_finished]
    ended = [run for run in over if history.end_run(run.run_id, end_of(run), intake_id=intake_of(run))]
    return {intake_id for run in ended if (intake_id := intake_of(run)) is not None}


def tick(intake: Intake, history: History, instance: dg.DagsterInstance) -> dg.SensorResult | dg.SkipReason:
    """What one look at the intake table asks for."""
    registered = register(intake, instance)
    intake.settle()
    requests = first_runs(intake, history, instance)
    if requests:
        return dg.SensorResult(run_requests=requests)
    return dg.SkipReason(f"{registered} submissions were registered." if registered else "No submission is waiting.")


@dg.sensor(
    name="intake",
    job=process_video,
    minimum_interval_seconds=5,
    default_status=dg.DefaultSensorStatus.RUNNING,
    required_resource_keys={"intake", "history"},
    description="Makes a partition of every new row of url_intake, and asks for a run where nobody has begun.",
)
def intake_sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
    return tick(context.resources.intake, context.resources.history, context.instance)
