"""The one way to declare an asset of a video.

A body reads as: positional parameters are the tables that it reads, keyword-only parameters are its tools (resources
by name), and `step`. It returns a table; everything that assets share stands here.
"""

# Without `from __future__ import annotations`: Dagster compares the type of `context` itself, not its name.

import inspect
import resource
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dagster as dg

from moments_assets.partitions import INTAKE_TAG, videos
from moments_core.errors import CheckError, FailureClass, MomentsError, classify, reason
from moments_core.options import Options
from moments_resources.catalogue import Artifact, Recipe, evidence_of
from moments_resources.makers import Choice
from moments_resources.step import Step, StepRequest
from moments_resources.table_io import Made, Reused, version_read
from moments_resources.tables import ASSET_TABLES, IDENTITY_COLUMNS, holds_media

if TYPE_CHECKING:
    from pandas import DataFrame

MAX_RETRIES = 2
_RETRIES = dg.RetryPolicy(max_retries=MAX_RETRIES, delay=2, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS)
_STEP = "step"
_GROUP = "videos"  # one group: the lineage page shows several as closed boxes

# Both are in use since Dagster 1.5 and warn at every run that they may change; we pin Dagster's minor version.
warnings.filterwarnings("ignore", category=dg.BetaWarning, message=".*data_version")
warnings.filterwarnings("ignore", category=dg.PreviewWarning, message=".*partitions_def")


@dataclass(frozen=True)
class Check:
    """A rule that a result must keep. `problems` gets the asset's table and what it read, and returns sentences."""

    name: str
    description: str
    problems: Callable[..., Iterable[str]]


def video_asset(
    *,
    code_version: str,
    kinds: set[str],
    pool: str | None = None,
    options: Sequence[str] = (),
    checks: Sequence[Check] = (),
) -> Callable[[Callable[..., Any]], dg.AssetsDefinition]:
    """Declare an asset: partitioned by video, committed through the catalogue, retried where that can help.

    `options` names the fields of Options that the result depends on; the body sees those alone. With equal code
    version, options, tools and inputs the current version is kept, unless the run says `force`.
    """

    def declare(body: Callable[..., Any]) -> dg.AssetsDefinition:
        asset = _VideoAsset(body, code_version, tuple(options), tuple(checks))

        @dg.asset(
            name=body.__name__,
            description=inspect.getdoc(body),
            ins={name: dg.AssetIn() for name in asset.reads},
            partitions_def=videos,
            io_manager_key="media_io" if holds_media(ASSET_TABLES[body.__name__]) else "table_io",
            required_resource_keys={"catalogue", "intake", "scratch", "run_options", *asset.tools},
            pool=pool,
            retry_policy=_RETRIES,
            code_version=code_version,
            group_name=_GROUP,
            kinds=kinds,
            owners=["team:moments"],
            metadata={"dagster/column_schema": column_schema(body.__name__)},
            check_specs=[_spec(check, body.__name__) for check in checks],
        )
        def compute(context: dg.AssetExecutionContext, **tables: Any) -> Iterator[Any]:
            with _failures_named(body.__name__):
                yield from asset.compute(context, tables)

        return compute

    return declare


def column_schema(asset: str) -> dg.TableSchema:
    """The asset's table as Dagster shows it."""
    columns = [
        dg.TableColumn(
            column.name,
            type=str(column.type).lower(),
            description=column.comment,
            constraints=dg.TableColumnConstraints(nullable=bool(column.nullable)),
        )
        for column in ASSET_TABLES[asset].c
        if column.name not in IDENTITY_COLUMNS
    ]
    return dg.TableSchema(columns)


@dataclass(frozen=True)
class _VideoAsset:
    body: Callable[..., Any]
    code_version: str
    options: tuple[str, ...]
    checks: tuple[Check, ...]

    @property
    def reads(self) -> list[str]:
        """The assets that it reads: its positional parameters."""
        return [name for name, kind in self._parameters() if kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]

    @property
    def tools(self) -> list[str]:
        """The resources that it uses: its keyword-only parameters, `step` aside."""
        return [name for name, kind in self._parameters() if kind is inspect.Parameter.KEYWORD_ONLY and name != _STEP]

    def compute(self, context: dg.AssetExecutionContext, tables: Mapping[str, Any]) -> Iterator[Any]:
        """One run of the asset for one video: keep what stands, or make it, check it and hand it over."""
        video_id = context.partition_key
        asked = context.resources.run_options.over(context.resources.intake.options_of(video_id))
        tools = {name: _chosen(getattr(context.resources, name), asked) for name in self.tools}
        request = self._request(context, video_id, asked)
        with Step(context.resources.catalogue, context.resources.scratch, request, self._recipe(tools, asked)) as step:
            step.inputs = {name: version_read(frame) for name, frame in tables.items()}
            standing = None if asked.force else _standing(step)
            if standing is not None:
                yield from self._keep(step, standing)
                return
            with _cpu_measured(step):
                frame = self.body(**tables, **tools, **({_STEP: step} if self._wants_step() else {}))
            yield from self._check(frame, tables, video_id)
            yield dg.Output(
                Made(frame, step),
                data_version=dg.DataVersion(f"attempt-{step.attempt.attempt_id}"),
                metadata={**step.shown, "seconds": round(step.seconds, 3)},
            )

    def _keep(self, step: Step, standing: Artifact) -> Iterator[Any]:
        step.reuse()
        for check in self.checks:
            yield dg.AssetCheckResult(
                check_name=check.name, passed=True, metadata={"kept since version": standing.version}
            )
        version = dg.DataVersion(f"attempt-{standing.attempt_id}")
        yield dg.Output(Reused(standing), data_version=version, metadata=dict(standing.measures))

    def _check(self, frame: "DataFrame", tables: Mapping[str, Any], video_id: str) -> Iterator[Any]:
        """Check before the commit: what breaks a rule is never seen by a reader. Raises CheckError."""
        broken = []
        for check in self.checks:
            problems = list(check.problems(frame, **tables))
            yield dg.AssetCheckResult(
                check_name=check.name, passed=not problems, metadata={"problems": problems[:10], "rows": len(frame)}
            )
            broken += problems
        if broken:
            more = f" ({len(broken)} problems in all)" if len(broken) > 1 else ""
            raise CheckError(f"The result was not kept: {broken[0]}{more}.", problems=broken[:10], video_id=video_id)

    def _recipe(self, tools: Mapping[str, object], asked: Options) -> Recipe:
        makers = {name: tool.recipe for name, tool in tools.items() if hasattr(tool, "recipe")}
        chosen = {name: getattr(asked, name) for name in self.options if getattr(asked, name) is not None}
        return Recipe(self.code_version, {"makers": makers, "options": chosen})

    def _request(self, context: dg.AssetExecutionContext, video_id: str, asked: Options) -> StepRequest:
        intake_id = context.run.tags.get(INTAKE_TAG)
        return StepRequest(
            video_id=video_id,
            asset=self.body.__name__,
            run_id=context.run.run_id,
            intake_id=int(intake_id) if intake_id and intake_id.isdigit() else None,
            options=Options.model_validate({name: getattr(asked, name) for name in self.options}),
            retries_left=context.retry_number < MAX_RETRIES,
        )

    def _wants_step(self) -> bool:
        return any(name == _STEP for name, _ in self._parameters())

    def _parameters(self) -> list[tuple[str, Any]]:
        return [(name, parameter.kind) for name, parameter in inspect.signature(self.body).parameters.items()]


def _chosen(tool: Any, asked: Options) -> Any:
    return tool.choose(asked) if isinstance(tool, Choice) else tool


def _standing(step: Step) -> Artifact | None:
    """The current version, where this step would only make it again."""
    current = step.current()
    return current if current is not None and current.is_made_by(step.recipe, step.inputs) else None


def _spec(check: Check, asset: str) -> dg.AssetCheckSpec:
    return dg.AssetCheckSpec(
        check.name, asset=asset, description=check.description, blocking=True, partitions_def=videos
    )


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


@contextmanager
def _failures_named(asset: str) -> Iterator[None]:
    """A foreseen error becomes one sentence in the UI, and is repeated only where that can help."""
    try:
        yield
    except MomentsError as error:
        failure_class = classify(error)
        evidence = {name: str(value)[:1000] for name, value in evidence_of(error).items()}
        raise dg.Failure(
            description=reason(error),
            metadata={"class": failure_class.value, "asset": asset, **evidence},
            allow_retries=failure_class is FailureClass.TRANSIENT,
        ) from error
