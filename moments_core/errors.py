"""The one tree of errors.

    MomentsError
    ├── PermanentError      the same input will fail again; no retry
    │   ├── SourceError     the address or file that was submitted
    │   ├── MediaError      what is inside a media file
    │   ├── ReplyError      what a model answered
    │   ├── SettingsError   a setting or option
    │   └── CheckError      a result that breaks one of our own rules
    ├── TransientError      may go well the next time; retried
    │   ├── NetworkError
    │   ├── ServiceError    a service of ours is away: database, store, model
    │   ├── ResourceError   this machine is short of disk or memory
    │   └── LeaseError      this attempt was not heard for too long; it may not commit
    ├── CancelledError      somebody asked for the end
    │   └── FenceError      a newer attempt took over; this one may not commit
    └── BudgetError         a limit on money or time would be passed

Every error is one sentence that says what is wrong and what to do about it (`str(error)`), a class
(`failure_class`) on which retries depend, and the evidence: short facts kept in `pipeline_history`.
No secret may stand in either.
"""

from __future__ import annotations

import errno
from enum import StrEnum
from typing import ClassVar


class FailureClass(StrEnum):
    """Why work ended without a result; retries depend on this alone."""

    PERMANENT = "permanent"
    TRANSIENT = "transient"
    CANCELLED = "cancelled"
    BUDGET = "budget"


class MomentsError(Exception):
    """Root of all errors that moments raises on purpose.

    `message` is one sentence for the user; `evidence` holds short strings or numbers, for the operator.
    """

    failure_class: ClassVar[FailureClass] = FailureClass.PERMANENT

    def __init__(self, message: str, **evidence: object) -> None:
        super().__init__(message)
        self.evidence: dict[str, object] = evidence


class PermanentError(MomentsError):
    """The same input will fail again."""


class SourceError(PermanentError):
    """The submitted address or file can't be used."""


class MediaError(PermanentError):
    """A media file can't be read, or not as a video."""


class ReplyError(PermanentError):
    """A model's reply can't be read; `evidence["reply"]` holds it."""


class SettingsError(PermanentError):
    """A setting, an option or a models entry is wrong."""


class CheckError(PermanentError):
    """A result breaks a rule that every committed result keeps."""


class TransientError(MomentsError):
    """May go well the next time."""

    failure_class = FailureClass.TRANSIENT


class NetworkError(TransientError):
    """The other side could not be reached, or broke off."""


class ServiceError(TransientError):
    """The database, the store or a model does not answer."""


class ResourceError(TransientError):
    """This machine is short of disk or memory."""


class LeaseError(TransientError):
    """The attempt's process was silent for longer than its lease: it may not commit."""


class CancelledError(MomentsError):
    """Somebody asked for the end of this work."""

    failure_class = FailureClass.CANCELLED


class FenceError(CancelledError):
    """A newer attempt took over, or this one was ended: it may not commit."""


class BudgetError(MomentsError):
    """A limit on money, tokens or seconds would be passed."""

    failure_class = FailureClass.BUDGET


DIED = "The process that did this work was killed, or its machine went down: run it again, nothing is lost."

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM}


def classify(error: BaseException) -> FailureClass:
    """The class of any exception.

    An error that nobody foresaw is a defect, and a defect repeats: permanent. Connections that break and a
    machine that is full are transient.
    """
    if isinstance(error, MomentsError):
        return error.failure_class
    if not isinstance(error, Exception):  # KeyboardInterrupt, GeneratorExit, an engine's own interrupt
        return FailureClass.CANCELLED
    if isinstance(error, (ConnectionError, TimeoutError, MemoryError)):
        return FailureClass.TRANSIENT
    if isinstance(error, OSError) and error.errno in _FULL:
        return FailureClass.TRANSIENT
    return FailureClass.PERMANENT


def may_help_at_once(error: BaseException) -> bool:
    """Whether trying again within seconds may help: it is transient, and nobody has said when to come back."""
    named = isinstance(error, MomentsError) and "not_before_s" in error.evidence
    return classify(error) is FailureClass.TRANSIENT and not named


def reason(error: BaseException) -> str:
    """One sentence for the user, whatever was raised."""
    if isinstance(error, MomentsError):
        return str(error)
    if not isinstance(error, Exception):
        return "Stopped on request before it was done; nothing of it was kept."
    if isinstance(error, (ConnectionError, TimeoutError)):
        return f"A connection broke or timed out ({type(error).__name__}): run this again."
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return "The disk is full: free some space, then run this again."
    if classify(error) is FailureClass.TRANSIENT:
        return f"This machine is short of memory or of open files ({type(error).__name__}): run this again."
    return f"Unexpected {type(error).__name__}: {str(error) or 'no message'}. This is a defect; please report it."
