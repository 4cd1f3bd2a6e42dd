"""The end of `make demo`: where things lie, and what to try next."""

from __future__ import annotations

from moments.printing import print_text
from moments.settings import load_settings

_NEXT = """
Clips and tables lie in {state}. Try next:

  .venv/bin/moments show sample.mp4                         how each asset was made, where the clips lie
  .venv/bin/moments process VIDEO_OR_URL --query "bees"     your own video; --help shows the options
  .venv/bin/moments sql "select title, score from moments"  every asset is a table: docs/tables.md
  make dev                                                  the Dagster UI at http://127.0.0.1:3000
  .venv/bin/moments down                                    stop PostgreSQL
"""


def main() -> None:
    print_text(_NEXT.format(state=load_settings().state))


if __name__ == "__main__":
    main()
