"""What a key file replaces identifiers by: the same for the same key, and known again by it.

Every replacement is an HMAC of the original under the key, and carries a check that only the key's owner can make. So a
second pass knows its own UIDs and IDs, and nobody else can claim that a file has been treated. Without the key, nothing
here can be computed or undone.
"""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass, field
from pathlib import Path

from mmfm.errors import ConfigError

MIN_KEY_BYTES = 16
MAX_KEY_BYTES = 1 << 20
"""A key file that is larger was meant to be something else."""

_UID_CHECK_BITS = 46
_PATIENT = re.compile(r"MMFM-([0-9a-f]{16})([0-9a-f]{10})")


@dataclass(frozen=True, kw_only=True)
class Key:
    """A secret, and what it turns identifiers into."""

    secret: bytes = field(repr=False)

    @classmethod
    def from_file(cls, path: Path) -> Key:
        """Reads the secret.

        Raises:
            ConfigError: there is no such file, or it is no key.
        """
        expected = f"a file of at least {MIN_KEY_BYTES} random bytes"
        fix = f"make one, for instance: head -c 32 /dev/urandom > {path.name or 'key'}"
        try:
            with path.open("rb") as stream:  # a device has no end
                secret = stream.read(MAX_KEY_BYTES + 1)
        except OSError as error:
            found = error.strerror or type(error).__name__
            raise ConfigError("--key", expected=expected, found=found, fix=fix) from None
        if len(secret) > MAX_KEY_BYTES:
            raise ConfigError("--key", expected=expected, found=f"one of more than {MAX_KEY_BYTES} bytes", fix=fix)
        if len(secret) < MIN_KEY_BYTES:
            raise ConfigError("--key", expected=expected, found=f"one of {len(secret)} bytes", fix=fix)
        return cls(secret=secret)

    def uid(self, original: str) -> str:
        """Returns the UID that stands for ``original``, or ``original`` if this key made it.

        It is a UUID of version 8 as ``2.25.<number>`` (PS3.5 B.2), of 76 bits that depend on the original and 46 that
        check those.
        """
        if self._made(original):
            return original
        body = int.from_bytes(self._mac("uid", original.encode())) >> (256 - 76)
        return f"2.25.{self._uuid(body)}"

    def patient_id(self, original: str) -> str:
        """Returns the Patient ID that stands for ``original``, or ``original`` if this key made it."""
        found = _PATIENT.fullmatch(original)
        if found and hmac.compare_digest(self._mac("patient check", found[1].encode()).hex()[:10], found[2]):
            return original
        body = self._mac("patient", original.encode()).hex()[:16]
        return f"MMFM-{body}{self._mac('patient check', body.encode()).hex()[:10]}"

    def shift(self, patient_id: str) -> int:
        """Returns by how many days the dates of a patient move: one to ten years back, the same for all of them.

        Args:
            patient_id: as ``patient_id`` returned it.
        """
        return -(365 + int.from_bytes(self._mac("shift", patient_id.encode())[:8]) % 3288)

    def file_name(self, content: bytes) -> str:
        """Returns a random-looking name for what holds ``content``."""
        return self._mac("file", content).hex()[:24]

    def seal(self, content: bytes) -> str:
        """Returns what only the owner of the key can put on ``content``."""
        return self._mac("seal", content).hex()[:32]

    def _made(self, uid: str) -> bool:
        prefix, _, number = uid.rpartition(".")
        if prefix != "2.25" or not re.fullmatch(r"[1-9][0-9]{0,38}", number):
            return False
        value = int(number)
        body = (value >> 80 << 28) | (value >> 64 & 0xFFF) << 16 | (value >> _UID_CHECK_BITS & 0xFFFF)
        return value == self._uuid(body)

    def _uuid(self, body: int) -> int:
        """Returns the 128 bits: 48 of the body, the version, 12 of the body, the variant, 16 of the body, the check."""
        check = int.from_bytes(self._mac("uid check", body.to_bytes(10))) >> (256 - _UID_CHECK_BITS)
        high = (body >> 28) << 16 | 0x8 << 12 | (body >> 16 & 0xFFF)
        return high << 64 | 0b10 << 62 | (body & 0xFFFF) << _UID_CHECK_BITS | check

    def _mac(self, purpose: str, content: bytes) -> bytes:
        return hmac.digest(self.secret, purpose.encode() + b"\0" + content, "sha256")
