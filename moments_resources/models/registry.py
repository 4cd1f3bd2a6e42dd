"""The models registry: models.yaml seeds the table `models`; from then on the table is the truth.

A model can be pointed elsewhere while the system runs, from any machine, so the file alone would not do. Every row is
read through `moments_core.model_entry`: a row that somebody edited with SQL is judged like one from the file.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml
from sqlalchemy import RowMapping, func, select, update
from sqlalchemy.dialects.postgresql import insert

from moments_core.errors import SettingsError
from moments_core.model_entry import BLOCKS, ModelEntry, check_field, parse_entry, shown_key
from moments_resources.database import Database
from moments_resources.tables import models

MAX_FILE_BYTES = 1_000_000  # some thousand entries; a larger file is something else

_NOT_SET = frozenset({"", "~", "null"})  # YAML's ways of writing nothing
_SSH_COLUMNS = {
    "host": "ssh_host",
    "port": "ssh_port",
    "user": "ssh_user",
    "key_file": "ssh_key",
    "known_hosts": "ssh_known_hosts",
}
_PLAIN_COLUMNS = tuple(name for name in ModelEntry.model_fields if name != "ssh")


@dataclass(frozen=True, slots=True)
class StoredModel:
    """A row of the table `models`."""

    entry: ModelEntry
    updated_at: datetime
    updated_by: str


class Models:
    """Reads and edits the table `models`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def seed(self, entries: Iterable[ModelEntry], *, seeded_by: str) -> list[str]:
        """Insert the entries whose keys are not there yet, and say which; what is there is left as it is."""
        rows = [_to_row(entry) | {"updated_by": seeded_by} for entry in entries]
        if not rows:
            return []
        new = insert(models).values(rows).on_conflict_do_nothing(index_elements=["key"])
        with self._database.begin() as connection:
            return list(connection.scalars(new.returning(models.c.key)))

    def seed_from(self, path: Path) -> list[ModelEntry]:
        """Seed with what a models file holds, and say what that is. Raises SettingsError for a file that is wrong."""
        entries = read_models_file(path)
        self.seed(entries, seeded_by=path.name)
        return entries

    def rows(self) -> list[StoredModel]:
        """All models, by key. Raises SettingsError for a row that is no valid entry."""
        with self._database.begin() as connection:
            rows = connection.execute(select(models).order_by(models.c.key)).mappings().all()
        return [StoredModel(_to_entry(row), row["updated_at"], row["updated_by"]) for row in rows]

    def entry(self, key: str) -> ModelEntry:
        """The entry of one model. Raises SettingsError where there is none, or no valid one."""
        with self._database.begin() as connection:
            row = connection.execute(select(models).where(models.c.key == key)).mappings().first()
        if row is None:
            raise self._unknown(key)
        return _to_entry(row)

    def edit(self, key: str, changes: Mapping[str, str]) -> ModelEntry:
        """Change fields, in the dotted form (`ssh.host`); empty text takes a field or block away.

        The entry is judged as a whole before it is written. The row is locked from the reading to the writing, so
        two edits of different fields both hold. Raises SettingsError; then nothing was changed.
        """
        mine = models.c.key == key
        with self._database.begin() as connection:
            row = connection.execute(select(models).where(mine).with_for_update()).mappings().first()
            if row is not None:
                entry = parse_entry(key, _changed(key, _to_fields(row), changes))
                stamp = {"updated_at": func.now(), "updated_by": func.current_user()}
                connection.execute(update(models).where(mine).values(**_to_row(entry), **stamp))
                return entry
        raise self._unknown(key)

    def _unknown(self, key: str) -> SettingsError:
        with self._database.begin() as connection:
            known: Sequence[str] = connection.scalars(select(models.c.key).order_by(models.c.key)).all()
        return unknown_model(key, known)


def unknown_model(key: str, known: Sequence[str]) -> SettingsError:
    """That there is no such model, and which there are."""
    if not known:
        return SettingsError(
            f"There is no model {shown_key(key)}, nor any other: describe it in models.yaml (MOMENTS_MODELS), or "
            "choose `local`."
        )
    close = difflib.get_close_matches(key, known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"choose one of {', '.join(known)}, or `local`."
    return SettingsError(f"There is no model {shown_key(key)}: {hint}", model=shown_key(key))


def read_models_file(path: Path) -> list[ModelEntry]:
    """The entries of a models file, in its order; none where there is no file.

    Raises SettingsError; evidence: `file`, and where it is an entry that is wrong, `key` and `field`.
    """
    try:
        return [parse_entry(key, _without_unset(fields)) for key, fields in _loaded(path).items()]
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}", file=str(path), **error.evidence) from error


def parse_changes(key: str, assignments: Iterable[str]) -> dict[str, str]:
    """`field=value` words as {field: value}. Raises SettingsError for what is none; it repeats no value."""
    changes: dict[str, str] = {}
    for number, assignment in enumerate(assignments, start=1):
        field, equals, value = assignment.partition("=")
        if not equals:
            raise SettingsError(f"Change {number} is not of the form field=value, such as defaults.temperature=0.2.")
        check_field(key, field)
        if field in changes:
            raise SettingsError(f"{field} is given twice.", key=key, field=field)
        if field in BLOCKS and value:
            example = f"{field}.{next(iter(BLOCKS[field].model_fields))}"
            raise SettingsError(f"{field} is a block: set its fields, such as {example}=….", key=key, field=field)
        changes[field] = value
    if not changes:
        raise SettingsError("There is nothing to change: give field=value, such as defaults.temperature=0.2.")
    return changes


class _TextLoader(yaml.BaseLoader):
    """Every scalar stays text, and the entry's own types read it.

    So `no` and `1.10` as a name are not turned into False and 1.1, and no tag builds an object. Merge keys (`<<`),
    with which a small file can claim all memory, are plain unknown fields; anchors and aliases work.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for name, _ in node.value:
            if str(name.value) in seen:
                raise yaml.constructor.ConstructorError(problem="a name stands twice", problem_mark=name.start_mark)
            seen.add(str(name.value))
        return super().construct_mapping(node, deep=deep)


def _loaded(path: Path) -> Mapping[str, object]:
    """The file's map, all scalars as text; empty where there is no file or nothing in it."""
    content = _parsed(_content(path)) or {}
    if not isinstance(content, Mapping):
        raise SettingsError("It must be a map from model keys to entries; see docs/models.md.")
    return content


def _content(path: Path) -> bytes:
    try:
        with path.expanduser().open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise SettingsError(f"It can't be read ({error.strerror}): check MOMENTS_MODELS.") from error
    if len(content) > MAX_FILE_BYTES:
        raise SettingsError("It is larger than a megabyte: is it a models file? Check MOMENTS_MODELS.")
    return content


def _parsed(content: bytes) -> object:
    try:
        return yaml.load(content, Loader=_TextLoader)  # noqa: S506 - it builds text, lists and maps alone
    except RecursionError:
        raise SettingsError("It is nested too deeply to be a models file.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        # Not chained: YAML's own messages quote the line, and in it whatever was pasted.
        raise SettingsError(f"It is no valid YAML{_position(error)}.") from None


def _position(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    return f" ({getattr(error, 'problem', None) or 'unreadable'}, line {mark.line + 1})" if mark else ""


def _without_unset(fields: object) -> object:
    if not isinstance(fields, Mapping):
        return fields
    return {
        name: _without_unset(value)
        for name, value in fields.items()
        if not (isinstance(value, str) and value in _NOT_SET)
    }


def _changed(key: str, fields: dict[str, Any], changes: Mapping[str, str]) -> dict[str, Any]:
    for field, value in changes.items():
        check_field(key, field)
        block, _, name = field.rpartition(".")
        target = fields.setdefault(block, {}) if block else fields
        if value:
            target[name] = value
        else:
            target.pop(name, None)
    return fields


def _to_row(entry: ModelEntry) -> dict[str, Any]:
    fields = entry.model_dump()
    ssh = fields["ssh"] or {}
    return {name: fields[name] for name in _PLAIN_COLUMNS} | {
        column: ssh.get(name) for name, column in _SSH_COLUMNS.items()
    }


def _to_fields(row: RowMapping) -> dict[str, Any]:
    """The row as an entry's fields, without those that are not set."""
    fields = {name: row[name] for name in _PLAIN_COLUMNS if name != "key" and row[name] is not None}
    ssh = {name: row[column] for name, column in _SSH_COLUMNS.items() if row[column] is not None}
    return fields | ({"ssh": ssh} if ssh else {})


def _to_entry(row: RowMapping) -> ModelEntry:
    return parse_entry(row["key"], _to_fields(row))
