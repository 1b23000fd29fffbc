# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who calls: the key of a request, its signature (SigV4), its age."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from lab.aws import emulation
from lab.aws.settings import ACCOUNT_ID, OPERATOR_ACCESS_KEY, AwsSettings

AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256\s+Credential=([^/,\s]+)/(\d{8})/([^/]+)/([^/]+)/aws4_request,\s*"
    r"SignedHeaders=([^,\s]+),\s*Signature=([0-9a-f]+)"
)
OLDEST = 15 * 60.0  # seconds that a request's date may be off


class Denied(Exception):
    """The request is answered with this error before it is looked at."""

    def __init__(self, code: str, message: str, status: int = 401) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status


@dataclass(frozen=True)
class Signed:
    """What the Authorization header says, unchecked."""

    key: str
    date: str
    region: str
    service: str
    headers: tuple[str, ...]
    signature: str


@dataclass(frozen=True)
class Caller:
    """Who calls, checked. The operator may do everything."""

    arn: str
    host: str  # instance id of a role session, or "operator"
    session: Any = None  # moto's assumed role

    @property
    def is_operator(self) -> bool:
        return self.session is None


OPERATOR = Caller("operator", "operator")


def parse(authorization: str) -> Signed | None:
    """The parts of a SigV4 header, None if it is none."""
    match = AUTHORIZATION.match(authorization)
    if not match:
        return None
    key, date, region, service, headers, signature = match.groups()
    return Signed(key, date, region, service, tuple(headers.split(";")), signature)


def authenticate(
    signed: Signed, method: str, url: str, headers: Mapping[str, str], body: bytes, settings: AwsSettings
) -> Caller:
    """The caller of a request. Raises Denied for a wrong key, signature, token or time."""
    if signed.key.startswith("ASIA"):
        return _role_session(signed, method, url, headers, body)
    if settings.operator_secret is not None:
        if signed.key != OPERATOR_ACCESS_KEY:
            raise _unknown(signed.service)
        _check_signature(signed, method, url, headers, body, Credentials(signed.key, settings.operator_secret))
    return OPERATOR


def _role_session(signed: Signed, method: str, url: str, headers: Mapping[str, str], body: bytes) -> Caller:
    session = emulation.sts(ACCOUNT_ID).get_assumed_role_from_access_key(signed.key)
    token = headers.get("x-amz-security-token", "")
    if session is None or not hmac.compare_digest(token, session.session_token):
        raise _unknown(signed.service)
    credentials = Credentials(signed.key, session.secret_access_key, session.session_token)
    _check_signature(signed, method, url, headers, body, credentials)
    if session.expiration.replace(tzinfo=timezone.utc) <= datetime.now(timezone.utc):
        raise _expired(signed.service)
    return Caller(session.arn, session.session_name, session)


def _check_signature(
    signed: Signed, method: str, url: str, headers: Mapping[str, str], body: bytes, credentials: Credentials
) -> None:
    sent = {name: headers[name] for name in signed.headers if name in headers}
    date = headers.get("x-amz-date", "")
    if len(sent) != len(signed.headers) or not date.startswith(signed.date):
        raise _unknown(signed.service)
    if "host" not in sent or ("x-amz-security-token" in headers and "x-amz-security-token" not in sent):
        raise _unknown(signed.service)
    stated = headers.get("x-amz-content-sha256")
    if stated not in (None, hashlib.sha256(body).hexdigest()):
        raise _unknown(signed.service)
    request = AWSRequest(method=method, url=url, headers=sent, data=body)
    request.context.update(timestamp=date, payload_signing_enabled=True)
    auth = SigV4Auth(credentials, signed.service, signed.region)
    expected = auth.signature(auth.string_to_sign(request, auth.canonical_request(request)), request)
    if not hmac.compare_digest(expected, signed.signature):
        raise _unknown(signed.service)
    _check_age(date, signed.service)


def _check_age(date: str, service: str) -> None:
    try:
        sent = datetime.strptime(date, "%Y%m%dT%H%M%SZ").replace(tzinfo=timezone.utc)
    except ValueError:
        raise _unknown(service) from None
    if abs((datetime.now(timezone.utc) - sent).total_seconds()) > OLDEST:
        raise _expired(service)


def _unknown(service: str) -> Denied:
    if service == "ec2":
        return Denied("AuthFailure", "AWS was not able to validate the provided access credentials", 401)
    return Denied("InvalidClientTokenId", "The security token included in the request is invalid.", 403)


def _expired(service: str) -> Denied:
    if service == "ec2":
        return Denied("RequestExpired", "Request has expired.", 400)
    return Denied("ExpiredToken", "The security token included in the request is expired", 403)
