"""One attempt at one asset of one video: its turn, its number, its scratch folder, and how it ends."""

from __future__ import annotations

import shutil
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from sqlalchemy.exc import SQLAlchemyError

from moments_core.errors import CheckError, MomentsError, ServiceError, may_help_at_once
from moments_core.options import Options
from moments_resources.catalogue import Artifact, Catalogue, Draft, Recipe
from moments_resources.history import Attempt
from moments_resources.listing import submit_entries
from moments_resources.store.locks import lock_of, passing_lock, remove_abandoned
from moments_resources.video_lists import ListFound

T = TypeVar("T")

_PROGRESS_SECONDS = 1.0  # a row update a second is cheap and looks alive
_RECORD_SECONDS = 30.0  # PostgreSQL is back after a restart in seconds; whoever waits here holds nothing but its turn


@dataclass(frozen=True, slots=True)
class StepRequest:
    """Who asks for what. `retries_left` says whether a transient failure will be tried again in this run."""

    video_id: str
    asset: str
    run_id: str
    intake_id: int | None = None
    retries_left: bool = False


class Step:
    """A context in which one asset of one video is made. Leaving it always ends the attempt and frees all.

    `recipe`, `options`, `inputs` (versions by asset) and `is_forced` are set inside, once they are known: an error in
    finding them out is a failure of this attempt too.
    """

    def __init__(self, catalogue: Catalogue, scratch: Path, request: StepRequest) -> None:
        self.request = request
        self.recipe = Recipe("", {})
        self.options = Options()
        self.inputs: Mapping[str, int] = {}
        self.is_forced = False  # everything is to be made anew, with new replies of models
        self.measures: dict[str, Any] = {}
        self.previews: dict[str, str] = {}
        self._catalogue = catalogue
        self._history = catalogue.history
        self._scratch = scratch
        self._resources = ExitStack()
        self._reported = 0.0
        self._has_ended = False

    def __enter__(self) -> Self:
        request = self.request
        with ExitStack() as opening:
            opening.enter_context(self._history.turn(request.video_id, request.asset))
            self.attempt: Attempt = self._history.open_attempt(
                request.video_id, request.asset, run_id=request.run_id, intake_id=request.intake_id
            )
            self._resources = opening.pop_all()
        self._started = time.monotonic()
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: TracebackType | None) -> None:
        self.end(error)

    def end(self, error: BaseException | None) -> None:
        """End the attempt: keep the error if there is one, remove the scratch folders, give up the turn.

        Raises CheckError where there is neither an error nor a result. Whatever ends a step first counts.
        """
        with self._resources:
            self._resources = ExitStack()
            if self._has_ended:
                return
            self._has_ended = True
            if error is not None:
                self._record(error)
                return
            nothing = CheckError(f"{self.request.asset} ended without a result. This is a defect; please report it.")
            self._record(nothing)
            raise nothing

    def _record(self, error: BaseException) -> None:
        """Keep why this ended, patiently: what took the database away may be what ended the step."""
        will_retry = self.request.retries_left and may_help_at_once(error)
        until = time.monotonic() + _RECORD_SECONDS
        while True:
            try:
                self._history.close_failed(self.attempt, error, will_retry=will_retry)
            except ServiceError as second:
                if time.monotonic() < until:
                    time.sleep(1)
                    continue
                _add_note(error, second)
            except (MomentsError, SQLAlchemyError) as second:
                _add_note(error, second)
            return

    @property
    def video_id(self) -> str:
        return self.request.video_id

    def folder(self) -> Path:
        """A new scratch folder; gone when the step ends. What killed processes left on this machine goes, too."""
        self._scratch.mkdir(parents=True, exist_ok=True)
        remove_abandoned(self._scratch)
        path = self._scratch / f"{self.attempt.attempt_id}-{uuid.uuid4().hex[:8]}"
        self._resources.enter_context(passing_lock(lock_of(path)))  # before there is a folder: none is without it
        self._resources.callback(shutil.rmtree, path, ignore_errors=True)
        path.mkdir()
        return path

    def hold(self, resource: AbstractContextManager[T]) -> T:
        """Enter a context that is left when the step ends, however it ends."""
        return self._resources.enter_context(resource)

    def on_end(self, clean_up: Callable[[], object]) -> None:
        """Call `clean_up` when the step ends, however it ends; the last one given is called first."""
        self._resources.callback(clean_up)

    def measure(self, **values: object) -> None:
        """Numbers and short strings to keep in the catalogue and to show (and plot) in the UI."""
        self.measures.update(values)

    def show(self, **previews: str) -> None:
        """Previews for the UI, as Markdown; under 20 kB each, for the catalogue and the event log keep them."""
        self.previews.update(previews)

    def progress(self, done: float) -> None:
        """Say how far the work has come, 0..1; written at most once a second."""
        now = time.monotonic()
        if now - self._reported >= _PROGRESS_SECONDS:
            self._reported = now
            # A database that is away for a moment must not end hours of work for a progress bar; a commit will tell.
            with suppress(ServiceError):
                self._history.note_progress(self.attempt, done)

    def progress_of(self, total: int) -> Any:
        """A callback that takes how much of `total` (ms, bytes) is done."""
        return lambda done, _total=None: self.progress(done / total if total else 0.0)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started

    def current(self) -> Artifact | None:
        return self._catalogue.current(self.video_id, self.request.asset)

    def reuse(self) -> None:
        """The current version is what this step would make."""
        self._history.close_reused(self.attempt)
        self._has_ended = True

    def expand(self, found: ListFound, listed_in: int) -> None:
        """There are several videos instead of one: each becomes a submission, listed in `listed_in`; nothing is made.

        Raises as `check_fence`, and SourceError for a list too deep in lists.
        """
        new = submit_entries(self._catalogue.database, self.attempt, listed_in, found)
        self.measure(videos_listed=len(found.entries), new_submissions=new, note=found.note or "")
        self._has_ended = True

    def commit(self, rows: Sequence[Mapping[str, Any]], objects: Sequence[Mapping[str, object]] = ()) -> Artifact:
        """Make the rows the current version. Raises FenceError when this attempt may not."""
        artifact = self._catalogue.commit(
            Draft(
                attempt=self.attempt,
                recipe=self.recipe,
                inputs=self.inputs,
                rows=rows,
                seconds=self.seconds,
                measures=self.measures,
                previews=self.previews,
                objects=objects,
            )
        )
        self._has_ended = True
        return artifact


def _add_note(error: BaseException, second: Exception) -> None:
    # The first error is the one to show; that it could not be recorded goes with it. The reaper ends the attempt.
    error.add_note(f"This failure could not be recorded: {second}")
