"""Signing keys: made once, private, checked against openssl."""

from __future__ import annotations

import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from resight.errors import InvalidArgument
from service.signing import KEY_NAME, PublicKeys, SigningKey, open_signing_key


def test_a_key_is_made_once_and_belongs_to_its_owner_alone(tmp_path: Path) -> None:
    first = open_signing_key(None, tmp_path)
    again = open_signing_key(None, tmp_path)
    assert first.signer == again.signer
    assert stat.S_IMODE((tmp_path / KEY_NAME).stat().st_mode) == 0o600


def test_a_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    open_signing_key(None, tmp_path)
    (tmp_path / KEY_NAME).chmod(0o644)
    with pytest.raises(InvalidArgument, match="can be read by others"):
        open_signing_key(None, tmp_path)


def test_signatures_hold_for_their_bytes_and_signer_alone() -> None:
    one, other = SigningKey(Ed25519PrivateKey.generate()), SigningKey(Ed25519PrivateKey.generate())
    keys = PublicKeys.of([one.public_pem])
    signature = one.sign(b"what was said")
    assert keys.verify(b"what was said", signature, one.signer)
    assert not keys.verify(b"what was sayd", signature, one.signer)
    assert not keys.verify(b"what was said", other.sign(b"what was said"), one.signer)
    assert not keys.verify(b"what was said", other.sign(b"what was said"), other.signer)
    assert one.signer in keys
    assert other.signer not in keys
    assert keys.pem(one.signer) == one.public_pem


@pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl here")
def test_openssl_takes_our_key_and_confirms_our_signature(tmp_path: Path) -> None:
    key = open_signing_key(None, tmp_path)
    (tmp_path / "public.pem").write_text(key.public_pem)
    (tmp_path / "message").write_bytes(b"one two")
    (tmp_path / "signature").write_bytes(key.sign(b"one two"))
    command = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", "public.pem", "-rawin"]
    command += ["-in", "message", "-sigfile", "signature"]
    verified = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    assert verified.returncode == 0, verified.stdout + verified.stderr
    (tmp_path / "message").write_bytes(b"one too")
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode != 0


def test_what_is_no_key_of_ours_is_refused_with_the_fix(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    with pytest.raises(InvalidArgument, match="cannot be read"):
        open_signing_key(path, tmp_path)
    path.write_text("nothing\n")
    path.chmod(0o600)
    with pytest.raises(InvalidArgument, match="openssl genpkey"):
        open_signing_key(path, tmp_path)
    rsa = generate_private_key(65537, 2048)
    path.write_bytes(rsa.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(InvalidArgument, match="no Ed25519 private key"):
        open_signing_key(path, tmp_path)
    with pytest.raises(InvalidArgument, match="no public key"):
        PublicKeys.read([path])
