"""The command line under wrong and hostile use: exit status, one sentence, no traceback, nothing changed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from moments.results import Results
from moments.services import Lakehouse

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def command(shared_lakehouse: Lakehouse, run_moments: Command) -> Command:
    done = run_moments("up", environment=dict(os.environ))
    assert done.returncode == 0, done.stderr
    return lambda *arguments, **more: run_moments(*arguments, environment=dict(os.environ), **more)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("frob",), "No such command 'frob'"),
        (("process",), "Missing argument"),
        (("process", "--exec=touch x"), "No such option"),
        (("process", "--max-moments", "many", "a.mp4"), "is not a valid integer"),
        (("process", "--max-moments", "0", "a.mp4"), "Option max_moments"),
        (("process", "--min-seconds", "nan", "a.mp4"), "Option min_seconds"),
        (
            ("process", "--min-seconds", "50", "--max-seconds", "10", "a.mp4"),
            "max_seconds must not be below min_seconds",
        ),
        (("process", "--query", "", "a.mp4"), "Option query"),
        (("sql", "select 1", "--json", "--csv"), "--json and --csv exclude each other."),
        (("show", "nothing"), "No video 'nothing' is known: `moments status` lists them."),
        (("status", "nothing"), "No video 'nothing' is known"),
        (("delete", "nothing", "--yes"), "No video 'nothing' is known"),
        (("dev", "--port", "99999999"), "is not in the range"),
        (("find", "/nowhere/at/all"), "No such file"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_wrong_usage_is_status_2_and_says_what(arguments: tuple[str, ...], words: str, command: Command) -> None:
    done = command(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "query",
    [
        "select 1; select 2",
        "drop table moments",
        "select 1; commit; drop table versions.moments",
        "insert into url_intake (url) values ('x')",
        "with x as (insert into url_intake (url) values ('x') returning 1) select * from x",
        "set transaction read write",
        "do $$ begin delete from url_intake; end $$",
        "copy (select 1) to program 'touch /tmp/x'",
        "commit",
        "select nextval('url_intake_intake_id_seq')",
        "",
    ],
)
def test_sql_takes_one_query_and_changes_nothing(query: str, command: Command) -> None:
    done = command("sql", query)
    assert (done.returncode, done.stdout) == (1, "")
    assert (
        done.stderr
        == "moments: `moments sql` runs one query that returns rows and changes nothing: write one SELECT.\n"
    )


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("selec 1", 'The query failed: syntax error at or near "selec".'),
        ("select nope", 'The query failed: column "nope" does not exist.'),
        ("select 1/0", "The query failed: division by zero."),
        ("select :a", 'The query failed: syntax error at or near ":".'),
    ],
)
def test_a_query_that_fails_is_one_sentence(query: str, reason: str, command: Command) -> None:
    done = command("sql", query)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"moments: {reason}\n")


def test_text_from_outside_does_not_steer_the_terminal(command: Command) -> None:
    done = command("sql", r"select E'\x1b[2Jred' as text")
    assert done.returncode == 0
    assert "\x1b" not in done.stdout


def test_lines_of_submit_may_be_blank_and_end_as_on_windows(command: Command) -> None:
    done = command(
        "submit", "-", "--json", stdin="\r\n  \r\nftp://example.org/a\r\n\nhttps://example.org/watch?v=1\r\n"
    )
    first, second = map(json.loads, done.stdout.splitlines())
    assert (first["source"], first["video_id"]) == ("ftp://example.org/a", None)
    assert (second["source"], second["error"]) == ("https://example.org/watch?v=1", None)
    assert done.returncode == 1


def test_no_line_at_all_is_no_submission(command: Command) -> None:
    done = command("submit", "-", stdin="\r\n\n")
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("name", ["submit", "process"])
def test_a_password_is_not_shown(name: str, command: Command) -> None:
    for form in ((), ("--json",)):
        done = command(name, *form, "https://me:hunter2@example.org/talk.mp4")
        assert done.returncode == 1
        assert "hunter2" not in done.stdout + done.stderr
        assert "https://***@example.org/talk.mp4" in done.stdout


def test_a_source_that_reads_as_an_option_comes_after_two_dashes(command: Command) -> None:
    done = command("process", "--json", "--", "--exec=touch x")
    result = json.loads(done.stdout)
    assert (done.returncode, result["status"], result["error"]["class"]) == (1, "failed", "permanent")
    assert "reads as an option" in result["error"]["reason"]


def test_a_name_that_is_no_text_is_shown_as_json_can(
    shared_lakehouse: Lakehouse, command: Command, tmp_path: Path
) -> None:
    name = os.fsdecode(b"talk \xff.mp4")
    arguments = [sys.executable, "-m", "moments.cli", "submit", "--json", str(tmp_path / name)]
    done = subprocess.run(arguments, capture_output=True, check=False)
    assert done.returncode == 1
    assert json.loads(done.stdout)["source"] == str(tmp_path / name)
    assert b"Traceback" not in done.stderr


def test_a_failure_is_found_in_status_and_in_the_view(command: Command, tmp_path: Path) -> None:
    bad = tmp_path / "milk.mp4"
    bad.write_text("To do: buy milk\n")
    reason = "milk.mp4 is text, not a video: submit the video itself."
    done = command("process", "--json", str(bad))
    result = json.loads(done.stdout)
    assert (done.returncode, result["failed_asset"]) == (1, "raw_video")
    assert result["error"] == {"class": "permanent", "reason": reason}
    [state] = map(json.loads, command("status", "--json", result["video_id"]).stdout.splitlines())
    assert (state["state"], state["asset"], state["attempts"], state["reason"]) == ("failed", "raw_video", 1, reason)
    query = "select title, asset, class, cause from failures where title = 'milk.mp4'"
    failure = json.loads(command("sql", "--json", query).stdout)
    assert failure == {"title": "milk.mp4", "asset": "raw_video", "class": "permanent", "cause": reason}


def test_none_of_it_has_changed_a_table(shared_lakehouse: Lakehouse, command: Command) -> None:
    urls = [row["url"] for row in Results(shared_lakehouse).rows("select url from public.url_intake")]
    assert "x" not in urls
    assert command("sql", "select 1 from moments").returncode == 0
