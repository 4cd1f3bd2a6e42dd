"""What happens when an asset of a video is made: keep what stands, or make it, check it, and hand it over."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from moments_assets.partitions import INTAKE_TAG
from moments_assets.video_asset import MAX_RETRIES, Declared
from moments_core.errors import CheckError
from moments_core.options import Options
from moments_resources.catalogue import Artifact, Catalogue, Recipe
from moments_resources.failures import failures_named
from moments_resources.frames import check_lineage, version_read
from moments_resources.makers import Choice
from moments_resources.step import Step, StepRequest
from moments_resources.table_io import Made, Reused, Unread

if TYPE_CHECKING:
    from pandas import DataFrame

    from moments_resources.pools import Pools


def make(declared: Declared, context: dg.AssetExecutionContext, inputs: Mapping[str, Unread]) -> Iterator[Any]:
    """One asset of one video; yields check results and the output, as Dagster wants them.

    Everything that can fail happens inside of the step: an unknown model or a missing input is in the history too.
    """
    with failures_named(declared.name), Step(*_for_step(declared, context)) as step:
        asked = _asked(context)
        step.options = Options.model_validate({name: getattr(asked, name) for name in declared.options})
        step.is_forced = bool(asked.force)
        tools = {name: _chosen(getattr(context.resources, name), asked, step) for name in declared.tools}
        step.recipe = _recipe(declared, tools, step.options)
        tables = {name: unread.read() for name, unread in inputs.items()}
        check_lineage(tables)
        step.inputs = {name: version_read(frame) for name, frame in tables.items()}
        standing = None if asked.force else _standing(step)
        if standing:
            yield from _keep(declared, step, standing)
            return
        with _place(declared, context.resources.pools, tools, step):
            frame = _made(declared, step, tables, tools)
        if frame is None:
            yield dg.AssetObservation(declared.name, partition=step.video_id, metadata=step.measures)
            return
        yield from _check(declared, frame, tables)
        yield dg.Output(Made(frame, step), data_version=dg.DataVersion(f"attempt-{step.attempt.attempt_id}"))


@contextmanager
def _place(declared: Declared, pools: Pools, tools: Mapping[str, Any], step: Step) -> Iterator[None]:
    """A place in the asset's pool. A tool that calls a model needs none: each of its calls waits for the model's."""
    if declared.pool is None or any(getattr(tool, "takes_turns", False) for tool in tools.values()):
        yield
        return
    asked = time.monotonic()
    with pools.turn(declared.pool):
        step.measure(waited_seconds=round(time.monotonic() - asked, 3))
        yield


def _made(
    declared: Declared, step: Step, tables: Mapping[str, DataFrame], tools: Mapping[str, Any]
) -> DataFrame | None:
    """The body's table; None where it ended the step without one."""
    with _cpu_measured(step):
        frame: DataFrame | None = declared.body(**tables, **tools, **({"step": step} if declared.wants_step else {}))
    return frame


def _for_step(declared: Declared, context: dg.AssetExecutionContext) -> tuple[Catalogue, Path, StepRequest]:
    request = StepRequest(
        video_id=context.partition_key,
        asset=declared.name,
        run_id=context.run.run_id,
        intake_id=_intake_id(context),
        retries_left=context.retry_number < MAX_RETRIES,
    )
    return context.resources.catalogue, context.resources.scratch, request


def _intake_id(context: dg.AssetExecutionContext) -> int | None:
    tag = context.run.tags.get(INTAKE_TAG)
    return int(tag) if tag and tag.isdigit() else None


def _asked(context: dg.AssetExecutionContext) -> Options:
    """The run's options, completed by those of its own submission; where a click started it, of the video's newest."""
    intake, intake_id = context.resources.intake, _intake_id(context)
    submitted = intake.row(intake_id).options if intake_id else intake.options_of(context.partition_key)
    asked: Options = context.resources.run_options.over(submitted)
    return asked


def _chosen(tool: Any, asked: Options, step: Step) -> Any:
    return tool.choose(asked, step) if isinstance(tool, Choice) else tool


def _recipe(declared: Declared, tools: Mapping[str, object], options: Options) -> Recipe:
    makers = {name: tool.recipe for name, tool in tools.items() if hasattr(tool, "recipe")}
    parameters = {name: tool.parameters for name, tool in tools.items() if hasattr(tool, "parameters")}
    config = {"makers": makers, "options": options.model_dump(exclude_none=True)}
    return Recipe(declared.code_version, config | ({"parameters": parameters} if parameters else {}))


def _standing(step: Step) -> Artifact | None:
    """The current version, where this step would only make it again."""
    current = step.current()
    return current if current is not None and current.is_made_by(step.recipe, step.inputs) else None


def _keep(declared: Declared, step: Step, standing: Artifact) -> Iterator[Any]:
    step.reuse()
    for check in declared.checks:
        yield dg.AssetCheckResult(check_name=check.name, passed=True, metadata={"kept since version": standing.version})
    version = dg.DataVersion(f"attempt-{standing.attempt_id}")
    yield dg.Output(Reused(standing), data_version=version)


def _check(declared: Declared, frame: DataFrame, tables: Mapping[str, DataFrame]) -> Iterator[Any]:
    """Check before the commit: what breaks a rule is never seen by a reader. Raises CheckError."""
    broken: list[str] = []
    for check in declared.checks:
        problems = list(check.problems(frame, **tables))
        yield dg.AssetCheckResult(
            check_name=check.name, passed=not problems, metadata={"problems": problems[:10], "rows": len(frame)}
        )
        broken += problems
    if broken:
        more = f" ({len(broken)} problems in all)" if len(broken) > 1 else ""
        raise CheckError(f"The result was not kept: {broken[0]}{more}.", problems=broken[:10])


@contextmanager
def _cpu_measured(step: Step) -> Iterator[None]:
    """CPU seconds of the body, those of ffmpeg apart: it is the only child that a body has."""
    own, children = time.process_time(), _children_cpu()
    yield
    step.measure(
        cpu_seconds=round(time.process_time() - own, 3), ffmpeg_cpu_seconds=round(_children_cpu() - children, 3)
    )


def _children_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
