"""What a start looks at before it opens, upgrades or drops anything."""

from __future__ import annotations

from pathlib import Path

from resight.errors import InvalidArgument
from service.access import key_set
from service.access.bootstrap import bootstrap_digest
from service.preflight.database import refuse_unreachable
from service.preflight.places import (
    refuse_full_disk,
    refuse_unusable_anchors,
    refuse_unusable_blobs,
    refuse_unusable_key,
    refuse_unwritable_data_dir,
)
from service.settings import ServiceSettings

__all__ = ["refuse_bad_start", "refuse_unusable_credentials"]


def refuse_bad_start(settings: ServiceSettings) -> None:
    """Find what would stop the start later, when the catalog may be changed already. Blocking.

    Raises:
        ResightError: the first fault; names the setting and the fix.
    """
    refuse_unusable_credentials(settings)
    if settings.audit.enabled:
        refuse_unusable_key(settings)
        refuse_unusable_anchors(settings, remote=False)
    refuse_unwritable_data_dir(settings)
    refuse_full_disk(settings)
    refuse_unreachable(settings)
    refuse_unusable_blobs(settings)


def refuse_unusable_credentials(settings: ServiceSettings) -> None:
    """Read the files that say who is let in; an issuer's URL may answer later.

    Raises:
        InvalidArgument: one cannot be used.
    """
    access = settings.access
    if access.bootstrap_key_file is not None:
        bootstrap_digest(access.bootstrap_key_file)
    if access.jwks_file is not None:
        _refuse_unusable_keys(access.jwks_file)


def _refuse_unusable_keys(file: Path) -> None:
    try:
        key_set.keys_of(key_set.of_file(file)())
    except (OSError, ValueError) as error:
        raise InvalidArgument(
            f"setting access.jwks_file (RESIGHT_ACCESS__JWKS_FILE): {file} cannot be used "
            f"({error}); put the issuer's JSON Web Key Set there",
            field="access.jwks_file",
        ) from error
