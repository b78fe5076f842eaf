"""The gate's parts as the settings ask for them."""

from __future__ import annotations

import logging

from service.access.bootstrap import bootstrap_digest
from service.access.door import Door
from service.access.gate import Authenticator, OpenDoor
from service.access.key_ring import KeyRing
from service.settings import ServiceSettings

__all__ = ["open_door"]

logger = logging.getLogger(__name__)


def open_door(settings: ServiceSettings, keys: KeyRing) -> Authenticator:
    """Who is let in.

    Raises:
        InvalidArgument: a setting of access cannot be used; names it and the fix.
    """
    access = settings.access
    bootstrap = None
    if access.bootstrap_key_file is not None:
        bootstrap = bootstrap_digest(access.bootstrap_key_file)
    if not settings.authentication_required:
        return OpenDoor()
    return Door(keys, bootstrap=bootstrap)
