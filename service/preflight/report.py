"""Everything that a start looks at, looked at without starting: all findings at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from resight.bundle import open_bundle
from resight.errors import InvalidArgument, ResightError
from service.encoder.opening import encoder_of
from service.encoder.session import CPU
from service.gallery.backend import index_factory
from service.gallery.search_threads import SearchThreads
from service.preflight.database import check_database
from service.preflight.places import (
    refuse_full_disk,
    refuse_locked_data_dir,
    refuse_unusable_anchors,
    refuse_unusable_blobs,
    refuse_unusable_key,
    refuse_unwritable_data_dir,
)
from service.preflight.start import refuse_unusable_credentials
from service.private_files import exposure
from service.settings import ServiceSettings
from service.tls.pair import read_pair
from service.tls.rotation import WARN_BEFORE
from service.transport.address import bound_socket, joined

__all__ = ["Finding", "checked"]

Outcome = Literal["ok", "warning", "failed", "skipped"]
# What a service that runs holds: the index of a GPU, too.
_LIVE = ("ports", "data_dir", "index")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        check: What.
        outcome: ``failed`` ones would refuse a start.
        message: What was found, with the fix where something is wrong.
    """

    check: str
    outcome: Outcome
    message: str


def checked(settings: ServiceSettings, *, running: bool = False) -> list[Finding]:
    """Look at everything. Blocking; makes and changes nothing but a few bytes in a remote store.

    Args:
        settings: As a start would have them.
        running: Whether a service runs with these settings: its ports, data directory and index
            are taken then, and not looked at.
    """
    found: list[Finding] = []
    for name, check in _CHECKS:
        if running and name in _LIVE:
            found.append(Finding(name, "skipped", "a service runs with it"))
            continue
        try:
            found += [Finding(name, outcome, message) for outcome, message in check(settings)]
        except ResightError as error:
            found.append(Finding(name, "failed", str(error)))
    return found


Found = Iterator[tuple[Outcome, str]]


def _network(settings: ServiceSettings) -> Found:
    if settings.authentication_required:
        yield "ok", "callers are asked for credentials"
    else:
        yield "ok", "callers are not asked for credentials"
    if settings.allow_insecure_network and settings.tls.certificate_file is None:
        yield "warning", "allow_insecure_network is set and TLS is not: see that a proxy ends it"


def _tls(settings: ServiceSettings) -> Found:
    now = datetime.now(UTC)
    pair = read_pair(settings.tls, now)
    if pair is None:
        yield "ok", "not set up"
        return
    for name, expires in (
        ("certificate_file", pair.expires),
        ("client_ca_file", pair.client_ca_expires),
    ):
        if expires is None:
            continue
        soon = expires - now <= WARN_BEFORE
        text = f"tls.{name} {getattr(settings.tls, name)} expires on {expires:%Y-%m-%d}"
        yield ("warning", f"{text}; renew it") if soon else ("ok", text)


def _access(settings: ServiceSettings) -> Found:
    refuse_unusable_credentials(settings)
    yield "ok", "key and token files can be used"


def _audit(settings: ServiceSettings) -> Found:
    if not settings.audit.enabled:
        yield "warning", "audit.enabled is false: nothing is recorded"
        return
    refuse_unusable_key(settings)
    refuse_unusable_anchors(settings, remote=True)
    yield "ok", "the signing key and the place of anchors can be used"


def _ports(settings: ServiceSettings) -> Found:
    for name, host, port in settings.listeners():
        try:
            bound_socket(host, port, listener=name).close()
        except ResightError as error:
            yield "failed", str(error)
        else:
            yield "ok", f"{name}: {joined(host, port)} is free"


def _bundle(settings: ServiceSettings) -> Found:
    if settings.bundle is None:
        raise InvalidArgument(
            "bundle is not set; name the encoder's folder or .tar with --bundle or RESIGHT_BUNDLE",
            field="bundle",
        )
    bundle = open_bundle(settings.bundle)
    yield "ok", f"{settings.bundle}: model {bundle.manifest.model_version}"
    if settings.encoder.provider != "cpu":
        encoder = encoder_of(bundle, settings.encoder)
        fell_back = encoder.provider == CPU
        yield "warning" if fell_back else "ok", f"encoder.provider: runs on {encoder.provider}"


def _data_dir(settings: ServiceSettings) -> Found:
    refuse_unwritable_data_dir(settings)
    refuse_locked_data_dir(settings)
    refuse_full_disk(settings)
    found = exposure(settings.data_dir)
    yield ("warning", found) if found else ("ok", f"{settings.data_dir} can be written")


def _database(settings: ServiceSettings) -> Found:
    yield "ok", check_database(settings, datetime.now(UTC))


def _blobs(settings: ServiceSettings) -> Found:
    refuse_unusable_blobs(settings)
    yield "ok", "images can be stored"


def _index(settings: ServiceSettings) -> Found:
    threads = SearchThreads(1)
    try:
        index_factory(
            settings.index.backend, threads=threads, milvus=settings.milvus, gpu=settings.gpu
        )
    finally:
        threads.close()
    yield "ok", f"backend {settings.index.backend}"


_CHECKS: tuple[tuple[str, Callable[[ServiceSettings], Found]], ...] = (
    ("network", _network),
    ("tls", _tls),
    ("access", _access),
    ("audit", _audit),
    ("ports", _ports),
    ("bundle", _bundle),
    ("data_dir", _data_dir),
    ("database", _database),
    ("blobs", _blobs),
    ("index", _index),
)
