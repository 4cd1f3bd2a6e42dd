"""How a model is shown a video of ours: by an address that it can open, or with the bytes in the request itself."""

from __future__ import annotations

import base64
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from moments_core.errors import MomentsError, SettingsError
from moments_core.model_entry import ModelEntry
from moments_resources.store.file import file_sha256
from moments_resources.store.interface import ObjectStore, safe_name

Address = Callable[[], str]
"""Asked when a request is sent: a signed address lives for 15 minutes, and a call may wait longer for its turn."""


class VideoAddresses:
    """Addresses of files under `folder` of the store, as the model's entry wants them.

    What was uploaded for it goes away when `on_end` calls what it was given.
    """

    def __init__(
        self, entry: ModelEntry, store: ObjectStore, *, folder: str, on_end: Callable[[Callable[[], object]], object]
    ) -> None:
        self._entry = entry
        self._store = store
        self._folder = folder
        self._on_end = on_end

    def of(self, path: Path) -> Address:
        """The address of one file, which has to stay where it is.

        Raises SettingsError where the entry says `url` and the store, or our credentials, can't make one.
        """
        if self._entry.video_by == "inline":
            return lambda: inline(path)
        key = f"{self._folder}/{file_sha256(path)[:16]}/{safe_name(path.name)}"
        if self._signed(key) is not None:
            # In this order: an upload that breaks off may leave something too.
            self._on_end(lambda: self._remove(key))
            self._store.adopt(path, key)
            return lambda: self._signed(key) or ""
        if self._entry.video_by is None:
            return lambda: inline(path)
        raise SettingsError(
            f"The model {self._entry.key} is to open clips by their address, and this store has none that another "
            f"machine could open: {self._let_it_have_bytes()}, or keep objects in a bucket.",
            model=self._entry.key,
        )

    def _signed(self, key: str) -> str | None:
        try:
            return self._store.signed_url(key)
        except SettingsError as error:
            raise SettingsError(
                f"{error} Or {self._let_it_have_bytes()}.", model=self._entry.key, **error.evidence
            ) from error

    def _let_it_have_bytes(self) -> str:
        return f"let requests hold the clip itself by `moments models set {self._entry.key} video_by=inline`"

    def _remove(self, key: str) -> None:
        # No reason to fail a step that is done: the object is named by nothing, and goes with its video.
        with suppress(MomentsError):
            self._store.delete(key)


def inline(path: Path) -> str:
    """The whole file as a data URL."""
    return f"data:video/mp4;base64,{base64.b64encode(path.read_bytes()).decode()}"
