"""What the commands share: the options of a submission, the lakehouse they work on, and how errors are told."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from moments.services import Lakehouse

Command = TypeVar("Command", bound=Callable[..., Any])

DONE, FAILED, WRONG_USAGE = 0, 1, 2

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")


def options_of_a_submission(command: Command) -> Command:
    """The options that `process` and `submit` share; each is a field of Options."""
    for option in reversed(
        [
            click.option("--query", help="What to look for, in your own words."),
            click.option("--max-moments", type=int, help="Keep the best N moments."),
            click.option("--min-seconds", type=float, help="Shortest moment, in seconds."),
            click.option("--max-seconds", type=float, help="Longest moment, in seconds."),
            click.option("--captions", is_flag=True, default=None, help="Use the video's own captions."),
            click.option("--generation-model", metavar="KEY", help="Model that finds the moments."),
            click.option("--refinement-model", metavar="KEY", help="Model that refines them."),
            click.option("--force", is_flag=True, default=None, help="Make everything again, also what is there."),
            click.option("--revive", is_flag=True, default=None, help="Bring the video back if it was taken down."),
        ]
    ):
        command = option(command)
    return command


def asked_options(asked: dict[str, Any]) -> Any:
    from moments_core.errors import SettingsError
    from moments_core.options import read_options

    try:
        return read_options(asked)
    except SettingsError as error:
        raise click.UsageError(str(error)) from error


def all_sources(sources: tuple[str, ...]) -> list[str]:
    """The sources, with `-` replaced by the lines of standard input."""
    found: list[str] = []
    for source in sources:
        found += [line.strip() for line in sys.stdin if line.strip()] if source == "-" else [source]
    return found


def known_video(lakehouse: Lakehouse, video: str) -> str:
    """A video id that the lakehouse knows, also one that was taken down; a URL or a file's name is a video too."""
    from moments.results import Results

    results, named = Results(lakehouse), _named(video)
    if results.has_video(video):
        return video
    for video_id in lakehouse.intake.taken_down({video, named or video}):
        return video_id
    query = """
    select distinct video_id from public.url_intake
    where video_id is not null and (url = :typed or name = :typed or video_id = :named)"""
    found = results.rows(query, typed=video, named=named)
    if len(found) != 1:
        raise click.UsageError(f"No video {video!r} is known: `moments status` lists them.")
    return str(found[0]["video_id"])


def standing_video(lakehouse: Lakehouse, video: str) -> str:
    """As `known_video`. Raises PermanentError for a video that was taken down."""
    video_id = known_video(lakehouse, video)
    tombstone = lakehouse.intake.taken_down({video_id}).get(video_id)
    refusal = tombstone and tombstone.refusal(revive=False)
    if refusal:
        raise refusal
    return video_id


def _named(video: str) -> str | None:
    """The id that a web address leads to, however it is spelt; None for what is none."""
    from moments_core.errors import SourceError
    from moments_resources.intake import name_video

    try:
        return name_video(video)
    except SourceError:
        return None


@contextmanager
def lakehouse_in_use() -> Iterator[Lakehouse]:
    """The lakehouse that the settings name, started and with its tables up to date: both take milliseconds if so."""
    from moments.services import up as start
    from moments.settings import load_settings

    with errors_shown():
        yield start(load_settings())


@contextmanager
def errors_shown() -> Iterator[None]:
    """A foreseen error is one sentence on stderr, never a traceback."""
    from moments_core.errors import MomentsError, SettingsError

    try:
        yield
    except MomentsError as error:
        click.echo(f"moments: {error}", err=True)
        sys.exit(WRONG_USAGE if isinstance(error, SettingsError) else FAILED)
    except KeyboardInterrupt:
        click.echo("moments: stopped; what was submitted stays submitted.", err=True)
        sys.exit(130)
