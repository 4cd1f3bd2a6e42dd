"""`moments cancel` and `moments delete`: commands that end something."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import click

from moments.cli_support import DONE, FAILED, json_option, known_video, lakehouse_in_use


@click.command()
@click.argument("videos", nargs=-1, required=True, metavar="VIDEO...")
@json_option
def cancel(videos: tuple[str, ...], as_json: bool) -> None:
    """Stop all work on videos, at once.

    Nothing is committed after it; what is there already stays. Submitted again, a video is worked on again.
    """
    from moments.cancel import cancel as stop

    with lakehouse_in_use() as lakehouse:
        video_ids = _known(lakehouse, videos)
        failed = _each(video_ids, lambda video_id: stop(lakehouse, video_id, tell=_tell), _print_cancelled, as_json)
    sys.exit(FAILED if failed else DONE)


@click.command()
@click.argument("videos", nargs=-1, required=True, metavar="VIDEO...")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--bulk", is_flag=True, help="Allow more than one video.")
@json_option
def delete(videos: tuple[str, ...], yes: bool, bulk: bool, as_json: bool) -> None:
    """Take videos down: remove everything of them.

    Work on them is stopped; objects, rows, runs and partitions go, and it is verified that nothing is left. A video
    that was taken down does not come back unless it is submitted with --revive. Can be repeated when it broke off.
    """
    from moments.takedown import take_down

    with lakehouse_in_use() as lakehouse:
        video_ids = _known(lakehouse, videos)
        if len(video_ids) > 1 and not bulk:
            raise click.UsageError(f"That are {len(video_ids)} videos: add --bulk if all of them are to go.")
        if not yes:
            click.confirm(f"Remove everything of {', '.join(video_ids)}?", abort=True, err=True)
        failed = _each(video_ids, lambda video_id: take_down(lakehouse, video_id, tell=_tell), _print_removed, as_json)
    sys.exit(FAILED if failed else DONE)


def _known(lakehouse: Any, videos: Sequence[str]) -> list[str]:
    """Each video once, and all of them known before anything ends."""
    return list(dict.fromkeys(known_video(lakehouse, video) for video in videos))


def _each(
    video_ids: Sequence[str],
    end: Callable[[str], dict[str, Any]],
    show: Callable[[dict[str, Any]], None],
    as_json: bool,
) -> bool:
    """End one after the other, also after one that failed; says whether one did."""
    from moments.printing import print_json
    from moments_core.errors import MomentsError

    failed = False
    for video_id in video_ids:
        try:
            done = end(video_id)
        except MomentsError as error:
            failed = True
            _tell(str(error))
        else:
            (print_json if as_json else show)(done)
    return failed


def _tell(line: str) -> None:
    click.echo(f"moments: {line}", err=True)


def _print_cancelled(done: dict[str, Any]) -> None:
    counts = [_counted(done["runs"], "run"), _counted(done["attempts"], "attempt")]
    counts.append(_counted(len(done["submissions"]), "submission"))
    is_nothing = not (done["runs"] or done["attempts"] or done["submissions"])
    told = "there is nothing to cancel." if is_nothing else f"stopped {', '.join(counts)}."
    click.echo(f"{done['video_id']}: {told}")


def _print_removed(done: dict[str, Any]) -> None:
    objects = f"{_counted(done['objects'], 'object')} ({done['bytes'] / 1e6:.1f} MB)"
    rows, runs = _counted(done["rows"], "row"), _counted(done["runs"], "run")
    click.echo(f"Removed {done['video_id']}: {objects}, {rows}, {runs}, its partition; nothing is left.")


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
