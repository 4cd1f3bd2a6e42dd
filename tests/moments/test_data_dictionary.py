"""docs/tables.md is what the code says."""

from __future__ import annotations

from moments.data_dictionary import document
from moments.settings import PROJECT


def test_the_page_is_up_to_date() -> None:
    page = (PROJECT / "docs" / "tables.md").read_text()
    assert page == document(), "run: python -m moments.data_dictionary > docs/tables.md"


def test_every_column_is_explained() -> None:
    assert " |  |" not in document()
