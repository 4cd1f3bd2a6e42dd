"""The composition root: which resource each asset is given. A production setting binds others here, nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

import dagster as dg

from moments.settings import load_settings
from moments_assets.jobs import ASSETS, process_video
from moments_resources.options import RunOptions
from moments_sensors.intake import intake_sensor

if TYPE_CHECKING:
    from moments.services import Lakehouse
    from moments_core.content import MomentFinder, MomentRefiner
    from moments_resources.downloader import Downloader, Limits
    from moments_resources.makers import Choice
    from moments_resources.media.runner import FfmpegRunner
    from moments_resources.speech import SpeechToText
    from moments_resources.table_io import TableIO


@dg.definitions
def definitions() -> dg.Definitions:
    """Everything that Dagster knows of moments. Nothing is contacted or imported before a run needs it."""
    load_settings()  # a wrong setting is told when the code is loaded, not in the middle of a run
    return dg.Definitions(
        assets=list(ASSETS),
        jobs=[process_video],
        sensors=[intake_sensor],
        # A process a run, steps one after the other: the cheapest, and the simplest to kill.
        executor=dg.in_process_executor,
        resources={
            "catalogue": _made_by(lambda: lakehouse().catalogue),
            "intake": _made_by(lambda: lakehouse().intake),
            "store": _made_by(lambda: lakehouse().store),
            "table_io": _io_manager(table_io),
            "media_io": _io_manager(media_io),
            "run_options": RunOptions.configure_at_launch(),
            "scratch": _made_by(lambda: lakehouse().settings.state / "scratch"),
            "limits": _made_by(limits),
            "downloader": _made_by(downloader),
            "ffmpeg": _made_by(ffmpeg),
            "speech": _made_by(speech),
            "finder": _made_by(finder),
            "refiner": _made_by(refiner),
        },
    )


@cache
def lakehouse() -> Lakehouse:
    from moments.services import connect

    return connect(load_settings())


def table_io() -> TableIO:
    from moments_resources.table_io import TableIO

    return TableIO(lakehouse().catalogue, lakehouse().store)


def media_io() -> TableIO:
    from moments_resources.media_io import MediaIO

    return MediaIO(lakehouse().catalogue, lakehouse().store)


def limits() -> Limits:
    from moments_resources.downloader import Limits

    settings = lakehouse().settings
    return Limits(
        max_bytes=int(settings.max_gigabytes * 1e9),
        max_duration_ms=int(settings.max_hours * 3_600_000),
        allow_private_hosts=settings.allow_private_hosts,
    )


def downloader() -> Downloader:
    from moments_resources.downloader import Downloader

    return Downloader(limits())


def ffmpeg() -> FfmpegRunner:
    from moments_resources.media.runner import FfmpegRunner

    return FfmpegRunner()


def speech() -> Choice[SpeechToText]:
    from moments_resources.makers import Choice
    from moments_resources.speech import LOCAL_SPEECH

    return Choice(LOCAL_SPEECH, lakehouse().settings.asr_model)


def finder() -> Choice[MomentFinder]:
    from moments_core.finder.find import LocalFinder
    from moments_resources.makers import Choice

    return Choice({"local": LocalFinder}, lakehouse().settings.generation_model, "generation_model")


def refiner() -> Choice[MomentRefiner]:
    from moments_core.snapping import LocalRefiner
    from moments_resources.makers import Choice

    return Choice({"local": LocalRefiner}, lakehouse().settings.refinement_model, "refinement_model")


def _made_by(make: Callable[[], object]) -> dg.ResourceDefinition:
    return dg.ResourceDefinition(lambda _context: make())


def _io_manager(make: Callable[[], TableIO]) -> dg.IOManagerDefinition:
    return dg.IOManagerDefinition(lambda _context: make())
