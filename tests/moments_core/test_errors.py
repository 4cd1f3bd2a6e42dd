from __future__ import annotations

import errno

import pytest

from moments_core.errors import (
    BudgetError,
    CancelledError,
    CheckError,
    FailureClass,
    FenceError,
    MediaError,
    MomentsError,
    NetworkError,
    PermanentError,
    ReplyError,
    ResourceError,
    ServiceError,
    SettingsError,
    SourceError,
    TransientError,
    classify,
    reason,
)


@pytest.mark.parametrize(
    ("kinds", "failure_class"),
    [
        ((PermanentError, SourceError, MediaError, ReplyError, SettingsError, CheckError), "permanent"),
        ((TransientError, NetworkError, ServiceError, ResourceError), "transient"),
        ((CancelledError, FenceError), "cancelled"),
        ((BudgetError,), "budget"),
    ],
)
def test_each_of_our_errors_has_the_class_of_its_branch(
    kinds: tuple[type[MomentsError], ...], failure_class: str
) -> None:
    assert {classify(kind("x")) for kind in kinds} == {FailureClass(failure_class)}


def test_an_error_is_one_sentence_with_its_evidence_beside_it() -> None:
    error = SourceError("The video is private: sign in.", status=403)
    assert str(error) == reason(error) == "The video is private: sign in."
    assert error.evidence == {"status": 403}


@pytest.mark.parametrize("error", [ValueError("x"), KeyError("x"), FileNotFoundError("x"), AssertionError()])
def test_a_defect_repeats_so_it_is_permanent_and_is_called_a_defect(error: Exception) -> None:
    assert classify(error) is FailureClass.PERMANENT
    assert type(error).__name__ in reason(error)
    assert "defect" in reason(error)


def test_a_defect_without_words_still_has_a_reason() -> None:
    assert "no message" in reason(AssertionError())


@pytest.mark.parametrize(
    "error",
    [
        ConnectionResetError("x"),
        BrokenPipeError("x"),
        TimeoutError("x"),
        MemoryError(),
        OSError(errno.ENOSPC, "x"),
        OSError(errno.EDQUOT, "x"),
        OSError(errno.EMFILE, "x"),
        OSError(errno.ENFILE, "x"),
        OSError(errno.ENOMEM, "x"),
    ],
)
def test_a_broken_connection_and_a_full_machine_may_go_well_the_next_time(error: Exception) -> None:
    assert classify(error) is FailureClass.TRANSIENT
    assert "defect" not in reason(error)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_named(code: int) -> None:
    assert "disk is full" in reason(OSError(code, "x"))


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1), GeneratorExit()])
def test_an_interrupt_is_no_failure_of_ours(error: BaseException) -> None:
    assert classify(error) is FailureClass.CANCELLED
    assert reason(error).startswith("Stopped on request")
