"""How results look: tables on a terminal, one JSON object a line, plain lines of progress in a pipe."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Protocol, Self

from rich.console import Console
from rich.markup import escape as _escape
from rich.progress import BarColumn, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.table import Table

from moments.query import Answer
from moments.results import Json, States
from moments_core.health import duration
from moments_core.time import clock, to_ms
from moments_resources.tables import ASSET_TABLES

STATES_ON_A_TERMINAL = 100  # videos: what somebody looks through

_ORDER = list(ASSET_TABLES)
_MARKS = {True: "[green]ok[/]", False: "[red]FAILED[/]", None: "[yellow]not checked[/]"}


class Finding(Protocol):
    """One thing that was checked: `ok` is None where it could not be."""

    @property
    def name(self) -> str: ...
    @property
    def ok(self) -> bool | None: ...
    @property
    def sentence(self) -> str: ...


def escape(text: str) -> str:
    """Text from outside as it may reach a terminal: no markup, no control characters (they move the cursor)."""
    return _escape("".join(letter if letter.isprintable() or letter == "\n" else "\ufffd" for letter in text))


def print_json(value: Json) -> None:
    sys.stdout.write(json.dumps(value, ensure_ascii=False, default=_as_json) + "\n")
    sys.stdout.flush()


def print_text(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def print_rows(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table of plain text."""
    table = _table(*columns)
    for row in rows:
        table.add_row(*(escape(str(cell)) for cell in row))
    _out().print(table)


def print_submission(told: Json) -> None:
    """One row of `moments submit`."""
    reason = f": {told['error']['reason']}" if told["error"] else ""
    print_text(f"{told['intake_id']}  {told['video_id'] or 'refused'}  {told['source']}{reason}")


def print_result(result: Json) -> None:
    """One processed video."""
    out = _out()
    if result["status"] != "completed":
        error = result["error"]
        out.print(
            f"[red]{escape(result['source'])}[/]: failed in {result['failed_asset'] or 'intake'} ({error['class']})"
        )
        out.print(f"  {escape(error['reason'])}")
        return
    if "listed" in result:
        _print_list(out, result)
        return
    reused = all(asset["reused"] for asset in result["assets"].values())
    out.print(
        f"[bold]{escape(result['source'])}[/]  {result['video_id']}  {clock(to_ms(result['duration']))}"
        f"{'  (was there already)' if reused else ''}"
    )
    _print_moments(out, result)


def _print_list(out: Console, result: Json) -> None:
    count = result["listed"]
    submitted = "1 video was" if count == 1 else f"{count} videos were"
    out.print(f"[bold]{escape(result['source'])}[/]: {submitted} submitted: `moments status` shows them")
    if result["note"]:
        out.print(f"  {escape(result['note'])}")


def print_video(content: Json) -> None:
    """`moments show`."""
    out = _out()
    out.print(f"[bold]{content['video_id']}[/]  {clock(to_ms(content['duration'] or 0))}")
    _print_moments(out, content)
    for moment in content["moments"]:
        if moment["clip"]:
            out.print(f"{escape(moment['title'])}: {moment['clip']['uri']}", soft_wrap=True)
    table = _table("asset", "version", "rows", "seconds", "made from", "by")
    for made in content["made"]:
        inputs = ", ".join(f"{name} v{version}" for name, version in made["inputs"].items()) or "the source"
        makers = ", ".join(made["config"].get("makers", {}).values()) or f"code {made['code_version']}"
        cells = (made["asset"], f"v{made['version']}", made["row_count"], f"{made['seconds']:.1f}", inputs, makers)
        table.add_row(*map(str, cells))
    out.print(table)


def print_states(found: States) -> None:
    """`moments status`."""
    if not found.counts:
        _out().print("No video was submitted yet: try `moments process samples/sample.mp4`.")
        return
    rows = (
        (
            state["video_id"] or "–",
            state["state"],
            state["asset"] or "" if _has_reason(state) or state["state"] == "running" else "",
            state["attempts"],
            state["title"],
            _reason(state),
        )
        for state in found.rows
    )
    print_rows(("video", "state", "asset", "attempts", "title", "reason"), rows)
    if found.total > len(found.rows):
        print_text(f"… and {found.total - len(found.rows)} more")
    # Apart from the table: who reads it line by line counts for himself.
    counts = ", ".join(f"{found.counts[state]} {state}" for state in sorted(found.counts))
    sys.stderr.write(f"{counts}\n")


def _has_reason(state: Json) -> bool:
    return state["reason"] is not None and state["state"] in {"failed", "cancelled", "waiting"}


def _reason(state: Json) -> str:
    """Why it is not there, and for what will be tried again: when."""
    if not _has_reason(state):
        return ""
    reason = f"{state['class']}: {state['reason']}"
    if state["not_before"] is None:
        return reason
    again = max(0.0, (state["not_before"] - datetime.now(UTC)).total_seconds())
    when = f"in {duration(again)}" if again else "now"
    return f"{reason} Failed {state['tries']} time{'' if state['tries'] == 1 else 's'}, again {when}."


def print_cleaned(cleaned: Mapping[str, int], verb: str) -> None:
    """`moments clean`."""
    went = [f"{cleaned.get(name, 0):,} {words}" for name, words in _CLEANED.items() if cleaned.get(name)]
    print_text(f"{verb}: {', '.join(went) or 'nothing'}.")
    if cleaned.get("found"):
        print_text(f"Noted for a later clean: {cleaned['found']:,} objects that no row names.")


def cleaned_json(cleaned: Mapping[str, int]) -> Json:
    """What went, each kind by its name; `found`: objects that were noted for a later clean."""
    return {name: cleaned.get(name, 0) for name in (*_CLEANED, "found")}


_CLEANED = {
    "versions": "superseded versions",
    "rows": "of their rows",
    "replies": "replies of models",
    "objects": "objects",
    "bytes": "bytes of objects",
    "runs": "runs",
    "events": "events",
    "cancellations": "cancellations",
    "days": "days of spending",
    "logs": "log files",
    "leftovers": "leftovers of dead processes",
}


def print_answer(answer: Answer) -> None:
    """`moments sql`."""
    table = _table(*answer.columns)
    count = 0
    for row in answer.rows:
        count += 1
        table.add_row(*("" if value is None else escape(_cell(value)) for value in row))
    _out().print(table)
    _note(f"{count} row{'' if count == 1 else 's'}")


def print_models(entries: Sequence[Json]) -> None:
    """`moments models list`."""
    if not entries:
        _out().print("No model is bound: everything runs locally. See docs/models.md to add one.")
        return
    table = _table("model", "kind", "served name", "where", "parallel", "defaults")
    for entry in entries:
        where = (
            entry.get("base_url") or f"{entry.get('remote_host')}:{entry.get('remote_port')}{entry.get('path') or ''}"
        )
        via = f" through {entry['ssh']['host']}" if entry.get("ssh") else ""
        cells = (entry["key"], entry["kind"], entry.get("served_name") or "", where + via, entry.get("parallel"))
        table.add_row(*(escape(str(cell)) for cell in cells), escape(json.dumps(entry.get("defaults") or {})))
    _out().print(table)


def print_findings(findings: Iterable[Finding]) -> None:
    """`moments doctor` and `moments models test`."""
    table = _table("what", "", "found")
    for finding in findings:
        table.add_row(finding.name, _MARKS[finding.ok], escape(finding.sentence))
    _out().print(table)


def _note(note: str) -> None:
    """A remark that is no part of the result."""
    if sys.stderr.isatty():
        sys.stderr.write(f"{note}\n")


class Progress:
    """Progress on stderr: a bar a video on a terminal, a line an asset in a pipe."""

    def __init__(self, count: int) -> None:
        self._bars = Bars(
            SpinnerColumn(),
            TextColumn("{task.fields[source]}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            disable=not sys.stderr.isatty(),
            transient=True,
        )
        self._count = count
        self._tasks: dict[str, TaskID] = {}
        self._said: dict[str, str] = {}

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def update(self, source: str, attempt: Json | None) -> None:
        """`attempt` is the newest one of the video, or None while it waits."""
        asset = attempt["asset"] if attempt else "waiting"
        if asset != self._said.get(source):
            self._said[source] = asset
            self._plain(f"{source}: {asset}")
        if self._bars.disable:
            return
        task = self._tasks.get(source)
        if task is None:
            task = self._tasks[source] = self._bars.add_task(asset, total=len(_ORDER), source=_short(source))
        within = (attempt["progress"] or 0.0) if attempt and attempt["outcome"] == "running" else 0.0
        self._bars.update(task, description=asset, completed=(_ORDER.index(asset) if attempt else 0) + within)

    def done(self, result: Json) -> None:
        source = result["source"]
        if source in self._tasks:
            self._bars.remove_task(self._tasks.pop(source))
        self._plain(f"{source}: {result['status']}")

    def _plain(self, line: str) -> None:
        if self._bars.disable:
            sys.stderr.write(f"{line}\n")
            sys.stderr.flush()


def _print_moments(out: Console, content: Json) -> None:
    """The moments, or why there are none."""
    if content["note"]:
        out.print(escape(f"{content['note']}."))
        return
    table = _table("start", "end", "title", "score", "refined", "clip")
    for moment in content["moments"]:
        refined, clip = moment["refined"], moment["clip"]
        table.add_row(
            clock(to_ms(moment["start_time"])),
            clock(to_ms(moment["end_time"])),
            escape(moment["title"]),
            f"{moment['score']:.2f}",
            f"{refined['start_time']:.1f}–{refined['end_time']:.1f} s" if refined else "",
            f"{clip['end_time'] - clip['start_time']:.1f} s" if clip else "",
        )
    out.print(table)


def _table(*columns: str) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _out() -> Console:
    # In a pipe, rich would fold lines at 80 columns; programs that read us want them whole.
    return Console(width=None if sys.stdout.isatty() else 10_000)


def _as_json(value: object) -> object:
    """What PostgreSQL knows and JSON doesn't: exact numbers, times."""
    return (
        float(value) if isinstance(value, Decimal) else value.isoformat() if isinstance(value, datetime) else str(value)
    )


def _cell(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=_as_json) if isinstance(value, (dict, list)) else str(value)


def _short(source: str) -> str:
    return source if len(source) <= 40 else f"…{source[-39:]}"
