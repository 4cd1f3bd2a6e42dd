"""The one way to declare an asset of a video.

A body reads as: positional parameters are the tables that it reads, keyword-only parameters are its tools (resources
by name), and `step`. It returns a table. What all assets share is declared here and done in making.py.
"""

# Without `from __future__ import annotations`: Dagster compares the type of `context` itself, not its name.

import inspect
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg

from moments_assets.partitions import videos
from moments_resources.asset_tables import BY_ASSET, AssetTable

MAX_RETRIES = 2
_RETRIES = dg.RetryPolicy(max_retries=MAX_RETRIES, delay=2, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS)
_ALL_USE = {"catalogue", "heart", "intake", "pools", "run_options", "scratch"}
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


@dataclass(frozen=True)
class Declared:
    """What is known of an asset besides what Dagster keeps."""

    body: Callable[..., Any]
    code_version: str
    pool: str | None
    options: tuple[str, ...]
    checks: tuple[Check, ...]

    @property
    def name(self) -> str:
        return self.body.__name__

    @property
    def reads(self) -> list[str]:
        """The assets that it reads: its positional parameters."""
        return [name for name, kind in self._parameters() if kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]

    @property
    def tools(self) -> list[str]:
        """The resources that it uses: its keyword-only parameters, `step` aside."""
        return [name for name, kind in self._parameters() if kind is inspect.Parameter.KEYWORD_ONLY and name != _STEP]

    @property
    def wants_step(self) -> bool:
        return any(name == _STEP for name, _ in self._parameters())

    def _parameters(self) -> list[tuple[str, Any]]:
        return [(name, parameter.kind) for name, parameter in inspect.signature(self.body).parameters.items()]


def video_asset(
    *,
    code_version: str,
    kinds: set[str],
    pool: str | None = None,
    options: Sequence[str] = (),
    checks: Sequence[Check] = (),
    output_required: bool = True,
) -> Callable[[Callable[..., Any]], dg.AssetsDefinition]:
    """Declare an asset: partitioned by video, committed through the catalogue, retried where that can help.

    `options` names the fields of Options that the result depends on; the body sees those alone. With equal code
    version, options, tools and inputs the current version is kept, unless the run says `force`. `output_required` is
    false for one whose body may end the step without a table; it has no checks, and what reads it is skipped then.
    """

    def declare(body: Callable[..., Any]) -> dg.AssetsDefinition:
        declared = Declared(body, code_version, pool, tuple(options), tuple(checks))

        @dg.asset(
            name=declared.name,
            description=inspect.getdoc(body),
            ins={name: dg.AssetIn() for name in declared.reads},
            partitions_def=videos,
            io_manager_key="media_io" if BY_ASSET[declared.name].holds_media else "table_io",
            required_resource_keys={*_ALL_USE, *declared.tools},
            pool=pool,
            retry_policy=_RETRIES,
            code_version=code_version,
            group_name=_GROUP,
            kinds=kinds,
            owners=["team:moments"],
            metadata={"dagster/column_schema": column_schema(BY_ASSET[declared.name])},
            output_required=output_required,
            check_specs=[_spec(check, declared.name) for check in checks],
        )
        def compute(context: dg.AssetExecutionContext, **tables: Any) -> Iterator[Any]:
            # Loading the code location stays cheap: only a run needs the database.
            from moments_assets.making import make

            yield from make(declared, context, tables)

        return compute

    return declare


def column_schema(table: AssetTable) -> dg.TableSchema:
    """A table as Dagster shows it."""
    columns = [
        dg.TableColumn(
            column.name,
            type=column.kind,
            description=column.comment,
            constraints=dg.TableColumnConstraints(nullable=column.nullable),
        )
        for column in table.columns
    ]
    return dg.TableSchema(columns)


def _spec(check: Check, asset: str) -> dg.AssetCheckSpec:
    return dg.AssetCheckSpec(
        check.name, asset=asset, description=check.description, blocking=True, partitions_def=videos
    )
