"""The error tree of resight.

Domain code raises these and knows nothing of gRPC, HTTP or the command line; each of the three
maps the tree once (``service.transport``, ``resight.cli``). Every error names the field (or
setting, or file) at fault and, in its message, the fix.
"""

from __future__ import annotations

__all__ = [
    "AlreadyExists",
    "BundleCorrupt",
    "CredentialsLapsed",
    "DataLoss",
    "DeadlineExceeded",
    "FailedPrecondition",
    "ImageTooLarge",
    "InvalidArgument",
    "NotFound",
    "PermissionDenied",
    "Refused",
    "RequestTooSlow",
    "ResightError",
    "ResourceExhausted",
    "Unauthenticated",
    "Unavailable",
    "UndecodableImage",
]


class ResightError(Exception):
    """Root of the tree.

    Args:
        message: For people; says what is wrong and how to mend it.
        field: The request field, setting, option or file at fault, when there is one.
        reason: Stable machine-readable code in UPPER_SNAKE_CASE.
        detail: For whoever runs this process and no caller of it, such as the words of a library,
            which may name hosts, paths and users. ``str`` shows it, ``message`` does not.
    """

    reason = "INTERNAL"

    def __init__(
        self, message: str, *, field: str = "", reason: str | None = None, detail: str = ""
    ) -> None:
        super().__init__(message)
        self.message = message
        self.detail = detail
        self.field = field
        if reason is not None:
            self.reason = reason

    def __str__(self) -> str:
        return f"{self.message} ({self.detail})" if self.detail else self.message


class InvalidArgument(ResightError):
    """The caller sent something that can never work."""

    reason = "INVALID_ARGUMENT"


class UndecodableImage(InvalidArgument):
    """The bytes are not a complete image of a supported format, or it is too small."""

    reason = "UNDECODABLE_IMAGE"


class ImageTooLarge(InvalidArgument):
    """The image has more bytes or pixels than the limit."""

    reason = "IMAGE_TOO_LARGE"


class NotFound(ResightError):
    """What the caller named does not exist."""

    reason = "NOT_FOUND"


class AlreadyExists(ResightError):
    """The name is taken by something different."""

    reason = "ALREADY_EXISTS"


class FailedPrecondition(ResightError):
    """The request is well formed but the state of the system forbids it."""

    reason = "FAILED_PRECONDITION"


class BundleCorrupt(FailedPrecondition):
    """A bundle (or checkpoint) does not match its own digests or golden outputs."""

    reason = "BUNDLE_CORRUPT"


class DataLoss(ResightError):
    """Something stored is lost or damaged and no retry brings it back."""

    reason = "DATA_LOSS"


class Refused(ResightError):
    """A gate said no; exit code 3 on the command line."""

    reason = "REFUSED"


class Unauthenticated(ResightError):
    """No credentials, or none that are known and still hold; says nothing about which."""

    reason = "UNAUTHENTICATED"


class CredentialsLapsed(Unauthenticated):
    """What was let in before is not any more; with other credentials it may go on where it was."""

    reason = "CREDENTIALS_LAPSED"


class PermissionDenied(ResightError):
    """Who asks is known and may not do this."""

    reason = "PERMISSION_DENIED"


class ResourceExhausted(ResightError):
    """A queue or quota is full; try again after ``retry_after`` seconds."""

    reason = "RESOURCE_EXHAUSTED"

    def __init__(
        self,
        message: str,
        *,
        field: str = "",
        reason: str | None = None,
        detail: str = "",
        retry_after: float = 1.0,
    ) -> None:
        super().__init__(message, field=field, reason=reason, detail=detail)
        self.retry_after = retry_after


class Unavailable(ResightError):
    """The service is starting, draining, or a part it needs is gone; try again later."""

    reason = "UNAVAILABLE"

    def __init__(
        self,
        message: str,
        *,
        field: str = "",
        reason: str | None = None,
        detail: str = "",
        retry_after: float = 1.0,
    ) -> None:
        super().__init__(message, field=field, reason=reason, detail=detail)
        self.retry_after = retry_after


class DeadlineExceeded(ResightError):
    """The caller's deadline has passed, or passes before the work could be done."""

    reason = "DEADLINE_EXCEEDED"


class RequestTooSlow(DeadlineExceeded):
    """What the caller sends does not come, or too slowly."""

    reason = "REQUEST_TOO_SLOW"
