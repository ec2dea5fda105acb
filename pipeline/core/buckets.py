"""Object storage: open a bucket, list and read its objects, and explain a server's errors.

Credentials come from the environment or from the provider's chain (botocore's, like that of the AWS
command line and DVC), and are passed to the client only. The server is set in
`AWS_ENDPOINT_URL_S3`, `AWS_ENDPOINT_URL` or the AWS profile's `endpoint_url`; the default is
Amazon's.
"""

import os
import re
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, NamedTuple

from . import packages
from .errors import ChangedError, DataError, HeadstartError, RefusedError

ADDRESS = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(.*))?", flags=re.DOTALL)
RETRIES = 4  # per request, 0.1 s after the first failure, and each wait twice as long
SECONDS_A_REQUEST = 300
PAGE = 1000  # objects per listing request
# The client requests temporary credentials again this often; botocore renews them in time.
ASKED_AGAIN = timedelta(minutes=5)
UNKNOWN = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"}
CREDENTIALS = (
    "credentials come from the environment (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY) or from"
    " where AWS's tools find them (docs/bucket.md)"
)

_one_opens = threading.Lock()


class Object(NamedTuple):
    """An object below the listed address; `etag` keeps the server's quotes, `size` is in bytes."""

    key: str
    etag: str
    size: int


def tidied(address: str) -> str:
    """Return `s3://BUCKET/PREFIX` without a slash at its end.

    Raises:
        DataError: the address is invalid. The message omits it, since it may contain a secret.
    """
    found = ADDRESS.fullmatch(address)
    if found is None or "://" in (found[2] or ""):
        raise DataError("the address should be s3://BUCKET or s3://BUCKET/PREFIX")
    return f"s3://{found[1]}/{(found[2] or '').strip('/')}".rstrip("/")


def listed(address: str) -> Iterator[list[Object]]:
    """Yield the objects below an address in batches, in the server's order.

    Raises:
        DataError: the AWS configuration cannot be used, the server does not list the objects or
            stops before the end, or an object has no ETag.
        MissingSetError: the extra for buckets is not installed.
    """
    store = opened(address)
    import obstore

    try:
        for page in obstore.list(store, chunk_size=PAGE):
            yield [_object(entry, address) for entry in page]
    # obstore raises ValueError for an invalid prefix.
    except (OSError, obstore.exceptions.BaseError, ValueError) as error:
        raise in_words(error, address, "listed") from None


def read(address: str, wanted: Object) -> bytes:
    """Return the bytes of an object that was listed below an address.

    Raises:
        ChangedError: the object has changed, or does not exist any more.
        RefusedError: access to the object is denied.
        DataError: the AWS configuration cannot be used, the server cannot be reached, or it does
            not accept the credentials.
        MissingSetError: the extra for buckets is not installed.
    """
    store = opened(address)
    import obstore

    where = f"{address}/{wanted.key}"
    try:
        answer = obstore.get(store, wanted.key, options={"if_match": wanted.etag})
        data = bytes(answer.bytes())
    except (OSError, obstore.exceptions.BaseError, ValueError) as error:
        raise in_words(error, where, "read") from None
    if len(data) != wanted.size:
        raise _changed(
            where, f"has {len(data):,} bytes, but had {wanted.size:,} when it was listed"
        )
    return data


def opened(address: str) -> Any:
    """Return the obstore client for an address, without a request to the server.

    Raises:
        DataError: the AWS configuration cannot be used.
        MissingSetError: the extra for buckets is not installed.
    """
    packages.need("s3", address)
    with _one_opens:
        return _opened(address)


@lru_cache(maxsize=4)
def _opened(address: str) -> Any:
    import botocore.session
    from obstore.store import S3Store

    bucket, _, prefix = address.removeprefix("s3://").partition("/")
    session = botocore.session.get_session()
    config: dict[str, Any] = {}
    profile = _profile(session)
    named = [os.environ.get(name) for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")]
    if endpoint := next(filter(None, [*named, profile.get("endpoint_url")]), None):
        config["endpoint"] = endpoint
    if region := os.environ.get("AWS_REGION") or session.get_config_variable("region"):
        config["region"] = region
    found = session.get_credentials()
    if found is None:  # a public bucket needs no credentials
        config["skip_signature"] = True
    return S3Store(
        bucket,
        prefix=prefix or None,
        config=config,  # type: ignore[arg-type]
        client_options={
            "allow_http": (endpoint or "").startswith("http://"),
            "timeout": timedelta(seconds=SECONDS_A_REQUEST),
        },
        retry_config={"max_retries": RETRIES},
        credential_provider=None if found is None else lambda: _credentials(found),
    )


def _profile(session: Any) -> dict[str, Any]:
    """Return the active profile of the AWS configuration; empty if there is none."""
    import botocore.exceptions

    try:
        return dict(session.get_scoped_config())
    except botocore.exceptions.BotoCoreError as error:
        raise DataError(f"the AWS configuration cannot be used: {error}") from None


def _credentials(found: Any) -> Any:
    frozen = found.get_frozen_credentials()
    ends = hasattr(found, "refresh_needed")
    return {
        "access_key_id": frozen.access_key,
        "secret_access_key": frozen.secret_key,
        "token": frozen.token,
        "expires_at": datetime.now(UTC) + ASKED_AGAIN if ends else None,
    }


def _object(entry: Any, address: str) -> Object:
    if not entry["e_tag"]:
        raise DataError(
            f"the server of {address} returns no ETag, so changes to objects cannot be detected"
        )
    return Object(entry["path"], entry["e_tag"], entry["size"])


def in_words(error: Exception, where: str, what: str) -> HeadstartError:
    """Explain an error of the server or the network in one line; `what` is the failed action."""
    from obstore import exceptions

    text = str(error)
    found = re.search(r"<Code>(\w+)</Code>", text)
    code = found[1] if found else ""
    bucket = where.removeprefix("s3://").partition("/")[0]
    if code == "NoSuchBucket":
        return DataError(f"{where} cannot be {what}: there is no bucket {bucket}")
    if code in UNKNOWN or isinstance(error, exceptions.UnauthenticatedError):
        return DataError(
            f"{where} cannot be {what}: the server rejects the credentials ({code or 401});"
            f" {CREDENTIALS}"
        )
    if code == "AccessDenied" or isinstance(error, exceptions.PermissionDeniedError):
        if what == "read":
            return RefusedError("access to the object is denied")
        return DataError(f"{where} cannot be {what}: access is denied; {CREDENTIALS}")
    if what == "read" and isinstance(error, exceptions.PreconditionError):
        return _changed(where, "has changed since it was listed")
    if what == "read" and isinstance(error, FileNotFoundError):
        return _changed(where, "was deleted after it was listed")
    if "Error parsing Path" in text or "parse path" in text:
        return DataError(
            f"{where} cannot be {what}: a key has a control character or an empty part (//), or one"
            " that is . or ..; give that object another name"
        )
    if code in ("PermanentRedirect", "AuthorizationHeaderMalformed"):
        return DataError(f"{where} is in another region ({code}); set AWS_DEFAULT_REGION")
    reason = code or text.partition("\n")[0].rpartition(" - ")[2][:200]
    return DataError(f"{where} cannot be {what} completely ({reason}); run the command again")


def _changed(where: str, how: str) -> ChangedError:
    return ChangedError(f"{where} {how}; run `headstart list`, then `headstart repro`")
