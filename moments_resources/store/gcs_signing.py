"""Signed addresses of objects (V4), by a key of ours or by IAM where there is none."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from moments_core.errors import MomentsError, PermanentError, ServiceError, SettingsError
from moments_resources.store.gcs_errors import gcs_faults_named

if TYPE_CHECKING:
    from google.cloud.storage import Blob

LONGEST_S = 900
_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_STATUS = re.compile(r'"code"\s*:\s*(\d{3})')
_NO_ACCOUNT = (
    "These Google credentials belong to no service account and can't sign addresses: use a service account's key, "
    "or a machine with a service account that has roles/iam.serviceAccountTokenCreator on itself."
)
_NOT_GRANTED = (
    "The service account may not sign addresses: "
    "grant it roles/iam.serviceAccountTokenCreator on itself and enable the IAM Service Account Credentials API."
)


class Signer:
    """Signs with the credentials of this machine, also where an emulator needs none to be read."""

    def __init__(self) -> None:
        self._credentials: Any = None

    def url(self, blob: Blob, bucket: str, lifetime_s: int) -> str:
        """An address that lives for 1 to 900 seconds. A secret: never stored, never logged."""
        if not 0 < lifetime_s <= LONGEST_S:
            raise PermanentError(f"A signed address may live for 1 to {LONGEST_S} seconds, not {lifetime_s}.")
        from google.auth.exceptions import TransportError

        with gcs_faults_named(bucket):
            try:
                return str(
                    blob.generate_signed_url(
                        version="v4", method="GET", expiration=timedelta(seconds=lifetime_s), **self._identity()
                    )
                )
            except TransportError as error:
                raise _refused(error) from None

    def _identity(self) -> dict[str, Any]:
        """A key of our own where there is one; else the account and its token, with which IAM signs."""
        from google.auth.credentials import Signing
        from google.auth.transport.requests import Request

        credentials = self._found()
        if isinstance(credentials, Signing):
            return {"credentials": credentials}
        if not getattr(credentials, "service_account_email", None):
            raise SettingsError(_NO_ACCOUNT)
        if not credentials.valid:
            credentials.refresh(Request())  # which also tells the name of a machine's "default" account
        return {"service_account_email": credentials.service_account_email, "access_token": credentials.token}

    def _found(self) -> Any:
        import google.auth

        if self._credentials is None:
            self._credentials, _ = google.auth.default(scopes=[_SCOPE])
        return self._credentials


def _refused(error: Exception) -> MomentsError:
    """IAM's refusal to sign; a status is in its text alone."""
    status = _STATUS.search(str(error))
    if status is None or status[1] == "429" or status[1].startswith("5"):
        return ServiceError("Google's IAM could not be reached to sign an address: run this again.")
    return SettingsError(_NOT_GRANTED, status=int(status[1]))
