from __future__ import annotations

import threading
import traceback
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import MetaData, text
from sqlalchemy.exc import IntegrityError

from moments_core.errors import SettingsError
from moments_core.model_entry import parse_entry
from moments_resources import tables
from moments_resources.database import Database
from moments_resources.models.registry import MAX_FILE_BYTES, Models, parse_changes, read_models_file

EXAMPLE = Path(__file__).parents[3] / "models.example.yaml"
CHAT = parse_entry("minimax", {"kind": "chat", "served_name": "m", "remote_host": "worker-16", "remote_port": 7104})
HOSTED = parse_entry("hosted", {"kind": "chat", "served_name": "x", "base_url": "https://api.example.org/v1"})


@pytest.fixture
def models(database: Database) -> Models:
    models = Models(database)
    models.seed([CHAT, HOSTED], seeded_by="models.yaml")
    return models


def written(folder: Path, content: str | bytes) -> Path:
    path = folder / "models.yaml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def refusal(path: Path) -> SettingsError:
    with pytest.raises(SettingsError) as caught:
        read_models_file(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert caught.value.evidence["file"] == str(path)
    return caught.value


# --- the file


def test_the_example_file_holds_the_models_of_the_field() -> None:
    entries = {entry.key: entry for entry in read_models_file(EXAMPLE)}
    assert {key: (entry.kind, entry.remote_port, entry.supports_video) for key, entry in entries.items()} == {
        "parakeet": ("asr", 8006, False),
        "minimax": ("chat", 7104, False),
        "qwen3_omni": ("chat", 8002, False),
        "qwen3_vl_fp8": ("vision", 8010, True),
        "hosted": ("chat", None, False),
    }


def test_blocks_can_be_shared_by_an_alias() -> None:
    shared = {entry.ssh for entry in read_models_file(EXAMPLE) if entry.ssh}
    assert [ssh.host for ssh in shared] == ["gpu.example.org"]


@pytest.mark.parametrize("content", ["", "# nothing yet\n", "---\n"])
def test_an_empty_file_holds_no_models(tmp_path: Path, content: str) -> None:
    assert read_models_file(written(tmp_path, content)) == []


def test_a_file_that_is_not_there_holds_no_models(tmp_path: Path) -> None:
    assert read_models_file(tmp_path / "none.yaml") == []


def test_a_folder_in_place_of_the_file_is_refused(tmp_path: Path) -> None:
    assert "can't be read" in str(refusal(tmp_path))


def test_a_wrong_entry_is_refused_with_file_key_and_field(tmp_path: Path) -> None:
    path = written(tmp_path, "qwen:\n  kind: chat\n  served_name: q\n  remote_host: h\n  remote_prot: 1\n")
    assert refusal(path).evidence == {"file": str(path), "key": "qwen", "field": "remote_prot"}


def test_words_that_yaml_takes_for_values_stay_words(tmp_path: Path) -> None:
    content = "'1.10':\n  kind: chat\n  served_name: {}\n  remote_host: h\n  remote_port: 1\n"
    for name in ("no", "1.10", "2026-01-01", "0x10", "1_000"):
        (entry,) = read_models_file(written(tmp_path, content.format(name)))
        assert (entry.key, entry.served_name) == ("1.10", name)


@pytest.mark.parametrize("nothing", ["", "~", "null", '""'])
def test_an_empty_value_is_not_set(tmp_path: Path, nothing: str) -> None:
    lines = "kind: chat, served_name: q, remote_host: h, remote_port: 1"
    path = written(tmp_path, f"q: {{{lines}, ssh: {nothing}, price: {{per_hour: {nothing}}}}}")
    assert read_models_file(path)[0].ssh is None


@pytest.mark.parametrize(
    "content",
    [
        "just a word",
        "- a\n- b\n",
        "a: {b: ",
        "a: b: c",
        "a: *nobody\n",
        "--- 1\n--- 2\n",
        "a: &a [*a]\n",
        "[1]: x\n",
        "\0",
        b"\xff\xfe\xfa",
        b"caf\xe9: {}",
        "[" * 10_000,
        "{a: " * 2_000,
        "a: !!python/object/apply:os.system ['false']\n",
        "a: !!timestamp x\nb: !!bool x\n",
        "a: [1, 2]\n",
        "local: {kind: chat}\n",
    ],
)
def test_what_is_no_models_file_is_refused_in_one_sentence(tmp_path: Path, content: str | bytes) -> None:
    assert len(str(refusal(written(tmp_path, content))).splitlines()) == 1


def test_a_name_that_stands_twice_is_refused_with_its_line(tmp_path: Path) -> None:
    error = refusal(written(tmp_path, "a:\n  kind: chat\n  kind: asr\n"))
    assert "a name stands twice, line 3" in str(error)


def test_merge_keys_are_refused_so_that_a_small_file_can_not_claim_all_memory(tmp_path: Path) -> None:
    levels = [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 30)}], k{n}: v}}" for n in range(1, 12)]
    refusal(written(tmp_path, "a0: &a0 {k: v}\n" + "\n".join(levels)))


def test_a_huge_file_is_refused_before_it_is_parsed(tmp_path: Path) -> None:
    assert "larger than a megabyte" in str(refusal(written(tmp_path, "#" * (MAX_FILE_BYTES + 1))))


def test_a_broken_file_is_refused_without_quoting_the_line(tmp_path: Path) -> None:
    error = refusal(written(tmp_path, "a:\n  api_key: 'hunter2\n"))
    assert "line" in str(error)
    assert "hunter2" not in "".join(traceback.format_exception(error))


# --- the table


def test_the_migrations_make_the_table_that_is_declared(database: Database) -> None:
    mine = MetaData()
    tables.models.to_metadata(mine)
    with database.begin() as connection:
        options = {"include_name": lambda name, kind, _: kind != "table" or name == "models", "compare_type": True}
        assert compare_metadata(MigrationContext.configure(connection, opts=options), mine) == []


def test_seeded_entries_come_back_as_they_were(database: Database) -> None:
    entries = read_models_file(EXAMPLE)
    models = Models(database)
    assert sorted(models.seed(entries, seeded_by="models.yaml")) == sorted(entry.key for entry in entries)
    rows = models.rows()
    assert [row.entry for row in rows] == sorted(entries, key=lambda entry: entry.key)
    assert {row.updated_by for row in rows} == {"models.yaml"}


def test_seeding_inserts_new_keys_and_never_overwrites(models: Models) -> None:
    models.edit("minimax", {"parallel": "7"})
    other = CHAT.model_copy(update={"key": "other"})
    assert models.seed([CHAT, HOSTED, other], seeded_by="models.yaml") == ["other"]
    assert models.entry("minimax").parallel == 7


def test_seeding_nothing_does_nothing(models: Models) -> None:
    assert models.seed([], seeded_by="models.yaml") == []


def test_an_edit_changes_the_named_fields_alone(models: Models) -> None:
    changed = models.edit("minimax", {"defaults.temperature": "0.2", "parallel": "3", "supports_video": "yes"})
    assert models.entry("minimax") == changed
    expected = CHAT.model_dump() | {"parallel": 3, "supports_video": True}
    assert changed.model_dump() == expected | {"defaults": CHAT.defaults.model_dump() | {"temperature": 0.2}}


def test_an_edit_says_who_and_when(models: Models, database: Database) -> None:
    before = models.rows()[1]
    models.edit("minimax", {"parallel": "3"})
    after = models.rows()[1]
    with database.begin() as connection:
        assert after.updated_by == connection.scalar(text("select current_user"))
    assert after.updated_at > before.updated_at


def test_a_model_can_be_moved_behind_ssh_and_back(models: Models) -> None:
    way = {"ssh.host": "gpu.example.org", "ssh.user": "moments", "ssh.key_file": "~/.ssh/id"}
    moved = models.edit("minimax", way)
    assert moved.ssh is not None
    assert (moved.ssh.host, moved.ssh.port) == ("gpu.example.org", 22)
    assert models.edit("minimax", {"ssh": ""}) == CHAT


def test_a_model_can_be_moved_to_a_hosted_api(models: Models) -> None:
    moved = models.edit(
        "minimax",
        {"remote_host": "", "remote_port": "", "base_url": "https://api.example.org/v1", "api_key_env": "KEY"},
    )
    assert (moved.remote_host, moved.base_url, moved.api_key_env) == (None, "https://api.example.org/v1", "KEY")


def test_an_edit_that_makes_the_entry_wrong_changes_nothing(models: Models) -> None:
    with pytest.raises(SettingsError, match=r"ssh\.user is missing"):
        models.edit("minimax", {"parallel": "9", "ssh.host": "gpu.example.org"})
    assert models.entry("minimax") == CHAT


def test_an_edit_of_an_unknown_field_is_refused(models: Models) -> None:
    with pytest.raises(SettingsError, match=r"ssh\.hots is not a field; did you mean ssh\.host\?"):
        models.edit("minimax", {"ssh.hots": "x"})


@pytest.mark.parametrize("read", [lambda models: models.entry("minmax"), lambda models: models.edit("minmax", {})])
def test_an_unknown_model_is_answered_with_the_one_that_was_meant(models: Models, read: Any) -> None:
    with pytest.raises(SettingsError, match=r"did you mean minimax\?"):
        read(models)


def test_an_unknown_model_that_resembles_none_is_answered_with_all(models: Models) -> None:
    with pytest.raises(SettingsError, match="There is no model zzz: choose one of hosted, minimax"):
        models.entry("zzz")


def test_where_there_are_no_models_the_message_says_how_to_add_some(database: Database) -> None:
    with pytest.raises(SettingsError, match="MOMENTS_MODELS"):
        Models(database).entry("minimax")


def test_two_edits_at_once_both_hold(models: Models, database: Database) -> None:
    edit = threading.Thread(target=models.edit, args=("minimax", {"timeout_s": "60"}))
    with database.begin() as first:
        first.execute(text("update models set parallel = 5 where key = 'minimax'"))
        edit.start()
        wait_for_a_blocked_statement(database)
    edit.join()
    entry = models.entry("minimax")
    assert (entry.parallel, entry.timeout_s) == (5, 60.0)


def test_a_row_that_was_broken_with_sql_is_refused_and_can_be_repaired(models: Models, database: Database) -> None:
    with database.begin() as connection:
        connection.execute(text("update models set parallel = -1 where key = 'minimax'"))
    with pytest.raises(SettingsError, match="Model minimax: parallel must be"):
        models.rows()
    with pytest.raises(SettingsError, match="Model minimax: parallel must be"):
        models.entry("minimax")
    assert models.entry("hosted") == HOSTED
    assert models.edit("minimax", {"parallel": "1"}) == CHAT


@pytest.mark.parametrize("change", ["kind = 'video'", "base_url = 'https://x'", "remote_host = null", "price = null"])
def test_the_database_refuses_a_row_that_no_entry_could_be(models: Models, database: Database, change: str) -> None:
    with pytest.raises(IntegrityError), database.begin() as connection:
        connection.execute(text(f"update models set {change} where key = 'minimax'"))  # noqa: S608


def wait_for_a_blocked_statement(database: Database) -> None:
    waiting = text("select count(*) from pg_locks where not granted")
    tick = threading.Event()
    for _ in range(1000):
        with database.begin() as connection:
            if connection.scalar(waiting):
                return
        tick.wait(0.01)
    pytest.fail("nothing waits for the row's lock")


# --- field=value


def test_changes_are_read_up_to_the_first_equals_sign() -> None:
    assert parse_changes("q", ["served_name=a=b", "ssh=", "ssh.port="]) == {
        "served_name": "a=b",
        "ssh": "",
        "ssh.port": "",
    }


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "There is nothing to change"),
        (["parallel=1", "hunter2"], "Change 2 is not of the form field=value"),
        (["paralel=1"], "paralel is not a field; did you mean parallel?"),
        (["key=other"], "key is not a field"),
        (["parallel=1", "parallel=2"], "parallel is given twice"),
        (["ssh=gpu.example.org"], "ssh is a block: set its fields, such as ssh.host="),
        (["=1"], "is not a field"),
    ],
)
def test_what_is_no_change_is_refused(words: list[str], says: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_changes("q", words)
    assert says in str(caught.value)
    assert "hunter2" not in str(caught.value)
