"""The command line. Every command is thin: it reads its arguments, calls one function, prints.

Nothing heavy is imported before a command needs it, so that `moments --help` answers at once. What a command shows
goes to stdout; progress, notes and errors go to stderr.
"""

from __future__ import annotations

import io
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from moments.cli_support import (
    DONE,
    FAILED,
    all_sources,
    asked_options,
    errors_shown,
    json_option,
    lakehouse_in_use,
    options_of_a_submission,
    standing_video,
)
from moments.ending_commands import cancel, delete


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="moments", message="%(prog)s %(version)s")
def main() -> None:
    """Turn videos into titled, timestamped highlights.

    Start with `moments process VIDEO`. State lies in $MOMENTS_HOME (default: .moments); see the README.
    """
    # Names of files are bytes, not always UTF-8: they come in whole, and go out as JSON itself would escape them.
    for stream, errors in ((sys.stdin, "surrogateescape"), (sys.stdout, "backslashreplace")):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=errors)


@main.command()
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@options_of_a_submission
@json_option
def process(sources: tuple[str, ...], as_json: bool, **asked: Any) -> None:
    """Submit videos, wait for them, show their moments.

    SOURCE is an http(s) URL or a local file. A video that is there already is not run again.
    """
    from moments.printing import Progress, print_json, print_result
    from moments.process import process as run

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: workers are told to stop, too
    failed = False
    with lakehouse_in_use() as lakehouse, Progress(len(sources)) as progress:
        for result in run(lakehouse, all_sources(sources), asked_options(asked), watch=progress.update):
            failed |= result["status"] != "completed"
            progress.done(result)
            (print_json if as_json else print_result)(result)
    sys.exit(FAILED if failed else DONE)


@main.command()
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE... | -")
@click.option("--priority", type=int, default=0, help="Higher goes first.", show_default=True)
@options_of_a_submission
@json_option
def submit(sources: tuple[str, ...], priority: int, as_json: bool, **asked: Any) -> None:
    """Put videos into the intake table; the sensor does the rest.

    `-` reads one source a line from standard input.
    """
    from moments.printing import print_json, print_submission
    from moments.process import shown_source
    from moments.services import DAEMON_LOCK

    refused = False
    with lakehouse_in_use() as lakehouse:
        options = asked_options(asked)
        for source in all_sources(sources):
            row = lakehouse.intake.submit(source, options, submitted_by="moments submit", priority=priority)
            refusal = lakehouse.intake.refusal(row)
            refused |= refusal is not None
            reason = refusal and {"class": refusal[0], "reason": refusal[1]}
            shown = shown_source(source, row)
            told = {"intake_id": row.intake_id, "source": shown, "video_id": row.video_id, "error": reason}
            (print_json if as_json else print_submission)(told)
        if not lakehouse.database.is_locked(DAEMON_LOCK):
            click.echo(
                "No daemon is at work: `moments dev` starts one, and `moments process` does not need it.", err=True
            )
    sys.exit(FAILED if refused else DONE)


@main.command()
@click.argument("video", required=False)
@click.option(
    "--state",
    type=click.Choice(["waiting", "running", "completed", "failed", "cancelled"]),
    help="Only videos that stand so.",
)
@click.option("--limit", type=click.IntRange(1), help="At most N videos, the newest first; 100 on a terminal.")
@json_option
def status(video: str | None, state: str | None, limit: int | None, as_json: bool) -> None:
    """Show where each video stands: state, asset, attempts, reason."""
    from moments.printing import STATES_ON_A_TERMINAL, print_json, print_states
    from moments.results import Results

    if limit is None and not as_json and sys.stdout.isatty():
        limit = STATES_ON_A_TERMINAL
    with lakehouse_in_use() as lakehouse:
        found = Results(lakehouse).states(standing_video(lakehouse, video) if video else None, state=state, limit=limit)
    if as_json:
        for row in found.rows:
            print_json(row)
    else:
        print_states(found)


@main.command()
@click.argument("video")
@json_option
def show(video: str, as_json: bool) -> None:
    """Show a video's moments and how they were made.

    VIDEO is a video's id, its address, or the name of its file.
    """
    from moments.printing import print_json, print_video
    from moments.results import Results

    with lakehouse_in_use() as lakehouse:
        results = Results(lakehouse)
        video_id = standing_video(lakehouse, video)
        content = {"video_id": video_id, **results.content(video_id), "made": results.made(video_id)}
    (print_json if as_json else print_video)(content)


@main.command()
@click.argument("query")
@json_option
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV on stdout.")
def sql(query: str, as_json: bool, as_csv: bool) -> None:
    """Run one read-only query on the lakehouse.

    docs/tables.md has every table and column.
    """
    from moments.printing import print_answer, print_json
    from moments.query import run_query, write_csv

    if as_json and as_csv:
        raise click.UsageError("--json and --csv exclude each other.")
    with lakehouse_in_use() as lakehouse, run_query(lakehouse, query) as answer:
        if as_csv:
            write_csv(answer, sys.stdout)
        elif as_json:
            for row in answer.rows:
                print_json(dict(zip(answer.columns, row, strict=True)))
        else:
            print_answer(answer)


main.add_command(cancel)
main.add_command(delete)


@main.command()
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@click.option("--bulk", is_flag=True, help="Also where that is over half of everything, or over 10,000 objects.")
@json_option
def clean(dry_run: bool, bulk: bool, as_json: bool) -> None:
    """Remove what is no longer needed, as it is done every night.

    Superseded versions, objects that nothing names, old runs and logs, leftovers of dead processes go; the settings
    MOMENTS_KEEP_* say how long each is kept.
    """
    from moments import cleaning
    from moments.printing import cleaned_json, print_cleaned, print_json

    def tell(line: str) -> None:
        click.echo(line, err=True)

    with lakehouse_in_use() as lakehouse:
        if dry_run:
            cleaned = cleaning.look_ahead(lakehouse, tell)
        else:
            if not bulk:
                cleaning.check_bulk(lakehouse)
            cleaned = cleaning.clean(lakehouse, tell)
    if as_json:
        print_json({"dry_run": dry_run, **cleaned_json(cleaned)})
    else:
        print_cleaned(cleaned, "Would remove" if dry_run else "Removed")


@main.group()
def models() -> None:
    """List, change and test the models."""


@models.command("list")
@json_option
def models_list(as_json: bool) -> None:
    """Show the models that are known."""
    from moments.models_command import list_models
    from moments.printing import print_json, print_models

    with lakehouse_in_use() as lakehouse:
        entries = list_models(lakehouse)
    if as_json:
        for entry in entries:
            print_json(entry)
    else:
        print_models(entries)


@models.command("set")
@click.argument("key")
@click.argument("assignments", nargs=-1, required=True, metavar="field=value...")
@json_option
def models_set(key: str, assignments: tuple[str, ...], as_json: bool) -> None:
    """Change fields of a model, e.g. `moments models set parakeet parallel=2 ssh.host=gpu.example.org`."""
    from moments.models_command import set_model
    from moments.printing import print_json, print_models

    with lakehouse_in_use() as lakehouse:
        entry = set_model(lakehouse, key, list(assignments))
    if as_json:
        print_json(entry)
    else:
        print_models([entry])


@models.command("test")
@click.argument("key")
@json_option
def models_test(key: str, as_json: bool) -> None:
    """Check what can be checked of a model from here."""
    from moments.models_command import test_model
    from moments.printing import print_findings, print_json

    with lakehouse_in_use() as lakehouse:
        result = test_model(lakehouse, key)
    if as_json:
        print_json({"key": key, "ok": result.ok, "steps": [step._asdict() for step in result.steps]})
    else:
        print_findings(result.steps)
    sys.exit(FAILED if result.ok is False else DONE)


@main.command()
@click.argument("file", type=click.File("r", encoding="utf-8"))
def find(file: Iterator[str]) -> None:
    """Run the moment finder alone, without a database.

    FILE holds one transcript a line: {"id", "duration", "sentences": [[start_s, end_s, speaker, turn_start, text],
    …]}; `-` is standard input. One {"id", "moments": […]} a line comes out.
    """
    from moments.printing import print_json
    from moments_core.finder.find import LocalFinder
    from moments_core.finder.jsonl import parse_line, result_line
    from moments_core.options import Options

    with errors_shown():
        finder = LocalFinder()
        for number, line in enumerate(file, start=1):
            if line.strip():
                name, content = parse_line(line, number)
                print_json(result_line(name, finder.find(content, Options())))


@main.command()
@json_option
def doctor(as_json: bool) -> None:
    """Say what works, what doesn't, and what to do.

    Database, tables, store, ffmpeg, speech to text, finder and models are tried for real.
    """
    from moments.doctor import examine
    from moments.printing import print_findings, print_json

    with errors_shown():
        findings = examine()
    healthy = all(finding.ok is not False for finding in findings)
    if as_json:
        print_json({"ok": healthy, "findings": [finding._asdict() for finding in findings]})
    else:
        print_findings(findings)
    sys.exit(DONE if healthy else FAILED)


@main.command()
@json_option
@click.option("--alert-test", is_flag=True, help="Send a test alert to the webhook instead.")
def health(as_json: bool, alert_test: bool) -> None:
    """Say how the installation is, and what to do where it is not well.

    Daemon, queue, leases, slots, failures, disk. Starts nothing: made to be called from outside, e.g. by cron.
    """
    from moments.health_command import examine, print_health, send_test
    from moments.printing import print_json, print_text
    from moments.settings import load_settings

    with errors_shown():
        if alert_test:
            answer = send_test(load_settings())
            print_json({"answer": answer}) if as_json else print_text(answer)
            return
        found, problems = examine(load_settings())
    print_health(found, problems, as_json=as_json)
    sys.exit(FAILED if problems else DONE)


@main.command()
def up() -> None:
    """Start the services of the embedded default.

    The tables are brought up to date. Other commands do the same when they need to.
    """
    with lakehouse_in_use() as lakehouse:
        click.echo(f"moments is up; state lies in {lakehouse.settings.state}. `moments down` stops it.", err=True)


@main.command()
def down() -> None:
    """Stop the services of the embedded default."""
    from moments.services import down as stop
    from moments.settings import load_settings

    with errors_shown():
        stopped = stop(load_settings())
    click.echo("Stopped." if stopped else "Nothing was running.", err=True)


@main.command()
@click.option(
    "--port", type=click.IntRange(1, 65535), default=3000, show_default=True, help="Port of the UI on 127.0.0.1."
)
def dev(port: int) -> None:
    """Start the services, the Dagster UI and the daemon.

    Ctrl-C stops UI and daemon; `moments down` stops the services.
    """
    from moments.dev import run

    with errors_shown():
        run(port)


@main.command()
@click.option(
    "--workspace",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Dagster workspace file that names a code server; by default one is started.",
)
def daemon(workspace: Path | None) -> None:
    """Start the services and the one daemon, without the UI.

    Ctrl-C and SIGTERM stop it. Exit status: 0 asked to stop, 1 failed, 2 another daemon is at work.
    """
    from moments.daemon import run

    with errors_shown():
        run(workspace)


if __name__ == "__main__":
    main()
