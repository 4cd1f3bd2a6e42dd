"""The composition root: which resource each asset is given. A production setting binds others here, nowhere else."""

from __future__ import annotations

import dagster as dg
from moments_resources.speech import LOCAL_SPEECH

from moments.services import connect
from moments.settings import load_settings
from moments_assets.jobs import ASSETS, process_video
from moments_core.finder.find import LocalFinder
from moments_core.snapping import LocalRefiner
from moments_resources.downloader import Downloader, Limits
from moments_resources.makers import Choice
from moments_resources.media.runner import FfmpegRunner
from moments_resources.media_io import MediaIO
from moments_resources.options import RunOptions
from moments_resources.table_io import TableIO
from moments_sensors.intake import intake_sensor


@dg.definitions
def definitions() -> dg.Definitions:
    """Everything that Dagster knows of moments. Nothing is contacted here."""
    settings = load_settings()
    lakehouse = connect(settings)
    catalogue, store = lakehouse.catalogue, lakehouse.store
    limits = Limits(
        max_bytes=int(settings.max_gigabytes * 1e9),
        max_duration_ms=int(settings.max_hours * 3_600_000),
        allow_private_hosts=settings.allow_private_hosts,
    )
    return dg.Definitions(
        assets=list(ASSETS),
        jobs=[process_video],
        sensors=[intake_sensor],
        # A process a run, steps one after the other: the cheapest, and the simplest to kill.
        executor=dg.in_process_executor,
        resources={
            "catalogue": catalogue,
            "intake": lakehouse.intake,
            "store": store,
            "table_io": TableIO(catalogue, store),
            "media_io": MediaIO(catalogue, store),
            "run_options": RunOptions.configure_at_launch(),
            "scratch": settings.state / "scratch",
            "limits": limits,
            "downloader": Downloader(limits),
            "ffmpeg": FfmpegRunner(),
            "speech": Choice(LOCAL_SPEECH, settings.asr_model),
            "finder": Choice({"local": LocalFinder}, settings.generation_model, "generation_model"),
            "refiner": Choice({"local": LocalRefiner}, settings.refinement_model, "refinement_model"),
        },
    )
