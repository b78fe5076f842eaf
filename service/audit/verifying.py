"""The whole audit verified: every digest computed anew, every signature, everything named or
anchored looked up.

What a verdict is worth depends on the keys: those that the catalog itself holds could have been put
there by whoever wrote the chains anew. Keys that the verifier brings along could not.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from uuid import UUID

from sqlalchemy import Connection

from resight.errors import InvalidArgument
from service.audit.chain import Head
from service.audit.chain_check import ChainCheck, Fault
from service.audit.checkpoints import BASE, HEAD, Checkpoint
from service.audit.genesis import named_ends
from service.audit.share import Share
from service.catalog import audit as statements
from service.signing import PublicKeys

__all__ = ["Verdict", "anchors_of", "verify"]

_STORED = "a checkpoint"


@dataclass(slots=True)
class Verdict:
    """What was found.

    Attributes:
        chains, entries: Read.
        checkpoints: Whose signature and digest hold.
        anchors: Copies from outside that were compared.
        unsigned_entries: After the last checkpoint of their chain.
        signers: Whose keys were used.
        keys_given: Whether the verifier brought them along.
        faults: Everything wrong.
    """

    chains: int = 0
    entries: int = 0
    checkpoints: int = 0
    anchors: int = 0
    unsigned_entries: int = 0
    signers: list[str] = field(default_factory=list)
    keys_given: bool = False
    faults: list[Fault] = field(default_factory=list)


def verify(
    connection: Connection,
    *,
    keys: PublicKeys | None = None,
    anchors: Sequence[Checkpoint] = (),
    heads: Sequence[Head] = (),
    galleries: Collection[str] | None = None,
) -> Verdict:
    """Verify one state of the catalog.

    Args:
        connection: Sees one state throughout.
        keys: Trusted; those that the catalog holds when None.
        anchors: Checkpoints that were kept outside.
        heads: How far chains were known to reach before ``connection`` saw its state, by whoever
            wrote them: beside the catalog, so that the end of the newest is missed, too.
        galleries: Whoever asks may hear of these alone: everything is verified, but counted and
            named are the entries of these; what else is wrong is one fault without a place.
    """
    verdict = Verdict(keys_given=keys is not None, anchors=len(anchors))
    if keys is None:
        keys = _stored_keys(connection, verdict)
    verdict.signers = keys.signers
    stated = [(made, _STORED) for made in statements.all_checkpoints(connection)]
    stated += [(made, "an anchor") for made in anchors]
    sound = [(made, by) for made, by in stated if _holds(made, by, keys, verdict)]
    checks = _checks(connection, sound, verdict)
    for head in heads:
        known = checks.setdefault(head.chain_id, ChainCheck(head.chain_id, None))
        known.expect(head.sequence, head.digest, "the replica that wrote it", signed=False)
    share = (
        None
        if galleries is None
        else Share(galleries, (made for made, by in sound if by == _STORED))
    )
    for entry in statements.all_entries(connection):
        check = checks.get(entry.chain_id)
        if check is None:
            check = checks[entry.chain_id] = ChainCheck(entry.chain_id, None)
        before = len(check.faults)
        check.add(entry)
        if share is not None:
            share.add(entry, check.faults[before:], check.covered)
    for check in checks.values():
        verdict.unsigned_entries += check.end()
        verdict.entries += check.entries
        verdict.chains += 1
        verdict.faults += check.faults
    wrong = {(fault.chain_id, fault.sequence) for fault in verdict.faults}
    verdict.checkpoints = sum(
        by == _STORED and (made.chain_id.hex, made.sequence) not in wrong for made, by in sound
    )
    verdict.faults.sort(key=lambda fault: (fault.chain_id, fault.sequence))
    return verdict if share is None else _shared(verdict, share)


def anchors_of(files: Iterable[tuple[str, bytes]]) -> list[Checkpoint]:
    """The checkpoints of files kept outside.

    Raises:
        InvalidArgument: one is no checkpoint.
    """
    found = []
    for name, content in files:
        try:
            found.append(Checkpoint.from_json(content.decode()))
        except ValueError as error:
            raise InvalidArgument(
                f"anchor {name} cannot be read ({error}); was it altered?", field="anchors"
            ) from error
    return found


def _shared(verdict: Verdict, share: Share) -> Verdict:
    return replace(
        verdict,
        chains=share.chains,
        entries=share.entries,
        checkpoints=share.checkpoints,
        unsigned_entries=share.unsigned_entries,
        faults=share.faults(verdict.faults),
    )


def _stored_keys(connection: Connection, verdict: Verdict) -> PublicKeys:
    good = []
    for signer, pem in statements.signers(connection).items():
        try:
            if signer in PublicKeys.of([pem]):
                good.append(pem)
                continue
        except InvalidArgument:
            pass
        verdict.faults.append(Fault("", 0, f"the stored public key of {signer} is not its key"))
    return PublicKeys.of(good)


def _holds(made: Checkpoint, by: str, keys: PublicKeys, verdict: Verdict) -> bool:
    if made.kind in (HEAD, BASE) and made.holds(keys):
        return True
    known = made.signer in keys
    why = "does not hold" if known else f"is of {made.signer}, whose key is not trusted here"
    verdict.faults.append(Fault(made.chain_id.hex, made.sequence, f"the signature of {by} {why}"))
    return False


def _checks(
    connection: Connection, sound: Sequence[tuple[Checkpoint, str]], verdict: Verdict
) -> dict[UUID, ChainCheck]:
    """A check for every chain of which anything is known, told what is said about it."""
    bases: dict[UUID, Checkpoint] = {}
    for made, _ in sound:
        known = bases.get(made.chain_id)
        if made.kind == BASE and (known is None or made.sequence > known.sequence):
            bases[made.chain_id] = made
    stored = statements.chains(connection)
    ids = {*stored, *(made.chain_id for made, _ in sound)}
    checks = {each: ChainCheck(each, bases.get(each)) for each in ids}
    signed = {made.chain_id for made, _ in sound}
    for made, by in sound:
        checks[made.chain_id].expect(made.sequence, made.digest, by, signed=True)
    for chain_id in stored:
        first = statements.entry_at(connection, chain_id, 1)
        if first is None:
            continue
        try:
            ends = named_ends(first.body)
        except ValueError as error:
            verdict.faults.append(Fault(chain_id.hex, 1, str(error)))
            continue
        by = f"chain {chain_id.hex}"
        for end in ends:
            check = checks.setdefault(
                end.chain_id, ChainCheck(end.chain_id, bases.get(end.chain_id))
            )
            check.expect(end.sequence, end.digest, by, signed=chain_id in signed)
    return checks
