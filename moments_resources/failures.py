"""How an error ends a step in Dagster: one sentence, its class, its evidence, and a retry only where that can help."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg
from dagster._core.errors import DagsterExecutionInterruptedError

from moments_core.errors import classify, may_help_at_once, reason
from moments_resources.history import evidence_of

_LONGEST = 1000  # characters of one piece of evidence in the event log; the history keeps more


class Interrupted(dg.DagsterError, KeyboardInterrupt):
    """Somebody asked for the end of a run.

    Dagster applies the retry policy to a plain interrupt: a step that was told to stop began anew, twice, until the
    process was killed. It lets its own errors pass as they are, and cancels the run for a KeyboardInterrupt.
    """


@contextmanager
def failures_named(asset: str) -> Iterator[None]:
    """Turn any error into the failure that Dagster shows.

    Also an error that nobody foresaw: Dagster's retry policy would repeat it, and a defect repeats itself.
    """
    try:
        yield
    except dg.Failure:
        raise
    except (KeyboardInterrupt, DagsterExecutionInterruptedError) as error:
        raise Interrupted(reason(error)) from error
    except Exception as error:
        evidence = {name: str(value)[:_LONGEST] for name, value in evidence_of(error).items()}
        raise dg.Failure(
            description=reason(error),
            metadata={"class": classify(error).value, "asset": asset, **evidence},
            allow_retries=may_help_at_once(error),
        ) from error
