"""What Google's libraries raise, as one sentence that says what to do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from moments_core.errors import MomentsError, ServiceError, SettingsError

ROLE = "roles/storage.objectUser"
_PERMISSION = re.compile(r"storage\.[a-z]+\.[a-zA-Z]+")
_BUSY = {408, 429}
_NO_CREDENTIALS = (
    "No usable Google credentials were found: set GOOGLE_APPLICATION_CREDENTIALS to a service account's key file, "
    "or run where a service account is attached."
)
_REFUSED = (
    "Google refuses our credentials as wrong, expired or revoked: "
    "renew the key that GOOGLE_APPLICATION_CREDENTIALS names, or the account's login."
)


@contextmanager
def gcs_faults_named(bucket: str) -> Iterator[None]:
    """Raises SettingsError for what somebody must grant or mend, ServiceError for what may go well the next time.

    Without a cause: Google's messages hold the address of an upload's session, at which anybody could write the
    object, and Dagster keeps the causes of an error in its event log.
    """
    try:
        yield
    except Exception as error:
        # Asked here, and not in the clause: a signal may interrupt the first import of Google's libraries, and what is
        # left of them then fails in every import that follows.
        if not isinstance(error, _foreign()):
            raise
        raise named(error, bucket) from None


def named(error: BaseException, bucket: str) -> MomentsError:
    """One of Google's errors as one of ours."""
    from google.api_core import exceptions as api
    from google.auth import exceptions as auth
    from google.cloud.storage.exceptions import InvalidResponse

    error = _innermost(error)
    if isinstance(error, api.GoogleAPICallError):
        return _answered(int(error.code or 0), str(error.message), bucket)
    if isinstance(error, InvalidResponse):
        return _answered(int(error.response.status_code), str(error.response.text), bucket)
    if isinstance(error, auth.DefaultCredentialsError):
        return SettingsError(_NO_CREDENTIALS)
    if isinstance(error, auth.GoogleAuthError) and not isinstance(error, auth.TransportError) and not error.retryable:
        return SettingsError(_REFUSED, kind=type(error).__name__)
    return ServiceError(
        "Google Cloud Storage could not be reached, or broke off: check the network, then run this again.",
        kind=type(error).__name__,
    )


def _answered(status: int, message: str, bucket: str) -> MomentsError:
    if status == 401:
        return SettingsError(_REFUSED, status=status)
    if status == 403:
        permission = _PERMISSION.search(message)
        missing = permission[0] if permission else "this"
        return SettingsError(
            f"Our Google account may not do {missing} in gs://{bucket}: grant it {ROLE} on the bucket.", status=status
        )
    if status == 404:
        return SettingsError(
            f"There is no bucket gs://{bucket}: create it, or correct MOMENTS_STORE_URL.", status=status
        )
    if status in _BUSY or status >= 500:
        return ServiceError(f"Google Cloud Storage is busy or away ({status}): run this again later.", status=status)
    return ServiceError(
        f"Google Cloud Storage gave an answer that we can't use ({status}): run this again.", status=status
    )


def _innermost(error: BaseException) -> BaseException:
    """The last failure of a call that was repeated until its time was up."""
    from google.api_core.exceptions import RetryError

    while isinstance(error, RetryError) and error.cause is not None:
        error = error.cause
    return error


def _foreign() -> tuple[type[BaseException], ...]:
    import requests
    import urllib3
    from google.api_core.exceptions import GoogleAPIError
    from google.auth.exceptions import GoogleAuthError
    from google.cloud.storage.exceptions import DataCorruption, InvalidResponse

    return (
        GoogleAPIError, GoogleAuthError, InvalidResponse, DataCorruption, requests.RequestException,
        urllib3.exceptions.HTTPError, ConnectionError, TimeoutError,
    )  # fmt: skip
