"""The composition root: which resource each asset is given. A production setting binds others here, nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import dagster as dg

from moments.settings import Settings, load_settings
from moments_assets.jobs import ASSETS, process_video
from moments_assets.url_intake import healthy, url_intake
from moments_resources.options import RunOptions
from moments_sensors.health import health_sensor
from moments_sensors.intake import intake_sensor
from moments_sensors.reconcile import reconcile_sensor
from moments_sensors.retention import nightly, retention_job

if TYPE_CHECKING:
    from moments.remote_models import RemoteModels
    from moments.services import Lakehouse
    from moments_core.content import MomentFinder, MomentRefiner
    from moments_resources.downloader import Downloader, Limits
    from moments_resources.health import HealthProbe
    from moments_resources.heart import Heart
    from moments_resources.makers import Choice
    from moments_resources.media.runner import FfmpegRunner
    from moments_resources.pools import Pools
    from moments_resources.retention.part import Retention
    from moments_resources.speech import SpeechToText
    from moments_resources.table_io import TableIO
    from moments_sensors.health import Alerts


@dg.definitions
def definitions() -> dg.Definitions:
    """Everything that Dagster knows of moments. Nothing is contacted, and nothing heavy imported, here."""
    bound = Bindings(load_settings())
    return dg.Definitions(
        assets=[url_intake, *ASSETS],
        asset_checks=[healthy],
        jobs=[process_video, retention_job],
        schedules=[nightly],
        sensors=[intake_sensor, reconcile_sensor, health_sensor],
        # A process a run, steps one after the other: the cheapest, and the simplest to kill.
        executor=dg.in_process_executor,
        resources={
            "heart": dg.ResourceDefinition(bound.heart),
            "history": _made_by(lambda: bound.lakehouse.history),
            "catalogue": _made_by(lambda: bound.lakehouse.catalogue),
            "intake": _made_by(lambda: bound.lakehouse.intake),
            "health": _made_by(bound.health),
            "alerts": _made_by(bound.alerts),
            "store": _made_by(lambda: bound.lakehouse.store),
            "retention": _made_by(bound.retention),
            "table_io": _io_manager(bound.table_io),
            "media_io": _io_manager(bound.media_io),
            "run_options": RunOptions.configure_at_launch(),
            "scratch": _made_by(lambda: bound.settings.state / "scratch"),
            "pools": _made_by(bound.pools),
            "limits": _made_by(bound.limits),
            "downloader": _made_by(bound.downloader),
            "ffmpeg": _made_by(bound.ffmpeg),
            "speech": _made_by(bound.speech),
            "finder": _made_by(bound.finder),
            "refiner": _made_by(bound.refiner),
        },
    )


@dataclass(frozen=True)
class Bindings:
    """Makes each resource when a run first asks for it."""

    settings: Settings

    @cached_property
    def lakehouse(self) -> Lakehouse:
        from moments.services import connect

        return connect(self.settings)

    def heart(self, context: dg.InitResourceContext) -> Iterator[Heart]:
        """Beats from before the first step of a run until after its last."""
        from moments_resources.heart import Heart
        from moments_resources.workers import Workers

        assert context.run is not None  # noqa: S101 - a resource of steps is made in a run
        with Heart(Workers(self.lakehouse.database), self.lakehouse.history, context.run.run_id) as heart:
            yield heart

    def health(self) -> HealthProbe:
        from moments.services import health_probe

        return health_probe(self.settings)

    def alerts(self) -> Alerts:
        from moments.services import alert_webhook
        from moments_sensors.health import Alerts

        return Alerts(alert_webhook(self.settings), wait_s=60 * self.settings.alert_wait_minutes)

    def retention(self) -> Retention:
        from moments.cleaning import retention_of

        return retention_of(self.lakehouse)

    def table_io(self) -> TableIO:
        from moments_resources.table_io import TableIO

        return TableIO(self.lakehouse.catalogue, self.lakehouse.store)

    def media_io(self) -> TableIO:
        from moments_resources.media_io import MediaIO

        return MediaIO(self.lakehouse.catalogue, self.lakehouse.store)

    @cached_property
    def remote_models(self) -> RemoteModels:
        from moments.remote_models import RemoteModels

        return RemoteModels(self.lakehouse, self.ffmpeg)

    def pools(self) -> Pools:
        from moments_resources.pools import Pools
        from moments_resources.turns import Turns

        return Pools(Turns(self.lakehouse.database), self.settings.pools)

    def limits(self) -> Limits:
        from moments_resources.downloader import Limits

        return Limits(
            max_bytes=int(self.settings.max_gigabytes * 1e9),
            max_duration_ms=int(self.settings.max_hours * 3_600_000),
            allow_private_hosts=self.settings.allow_private_hosts,
            max_list=self.settings.max_list,
        )

    def downloader(self) -> Downloader:
        from moments_resources.downloader import Downloader

        return Downloader(self.limits())

    def ffmpeg(self) -> FfmpegRunner:
        from moments_resources.media.runner import FfmpegRunner

        return FfmpegRunner()

    def speech(self) -> Choice[SpeechToText]:
        from moments_resources.makers import Choice
        from moments_resources.speech import LOCAL_SPEECH

        return Choice(LOCAL_SPEECH, self.remote_models.speech, self.settings.asr_model)

    def finder(self) -> Choice[MomentFinder]:
        from moments_core.finder.find import LocalFinder
        from moments_resources.makers import Choice

        return Choice(
            {"local": LocalFinder}, self.remote_models.finder, self.settings.generation_model, "generation_model"
        )

    def refiner(self) -> Choice[MomentRefiner]:
        from moments_core.snapping import LocalRefiner
        from moments_resources.makers import Choice

        return Choice(
            {"local": LocalRefiner}, self.remote_models.refiner, self.settings.refinement_model, "refinement_model"
        )


def _made_by(make: Callable[[], object]) -> dg.ResourceDefinition:
    return dg.ResourceDefinition(lambda _context: make())


def _io_manager(make: Callable[[], TableIO]) -> dg.IOManagerDefinition:
    return dg.IOManagerDefinition(lambda _context: make())
