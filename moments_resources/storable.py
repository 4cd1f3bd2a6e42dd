"""Values as PostgreSQL can hold them: text and numbers from outside hold what it refuses."""

from __future__ import annotations

import math
from typing import Any


def storable_text(text: str) -> str:
    """`text` with U+FFFD for NUL and `?` for a lone half of a surrogate pair.

    Neither fits into PostgreSQL's text or jsonb; a file's metadata, its name and a tool's last words may hold both.
    """
    return text.replace("\0", "\ufffd").encode(errors="replace").decode()


def storable(value: Any) -> Any:
    """A cell as Python's own value: numpy's numbers and pandas' missing values too, also inside lists and dicts."""
    if isinstance(value, str):
        return storable_text(value)
    if isinstance(value, (bool, int)) or value is None:
        return value
    if isinstance(value, (list, tuple, dict)) or hasattr(value, "tolist"):
        return _unpacked(value)
    return None if _is_missing(value) else value


def storable_json(value: Any) -> Any:
    """As `storable`, with None for infinite numbers: JSON has none."""
    plain = storable(value)
    return None if isinstance(plain, float) and math.isinf(plain) else plain


def _unpacked(value: Any) -> Any:
    if isinstance(value, dict):
        return {storable_text(str(name)): storable_json(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [storable_json(item) for item in value]
    return storable(value.tolist())  # numpy: a scalar gives a number, an array a list


def _is_missing(value: object) -> bool:
    if isinstance(value, float):
        return math.isnan(value)
    import pandas as pd

    return value is pd.NA or value is pd.NaT
