"""Link addresses and the one-time password (otp) they carry.

An otp is `issued at` + `issue number` + a keyed hash over both and the connection, all digits: checking one needs no
row, so a page of 5,000 connections mints 5,000 fresh links without writing any. Only strict mode writes: it keeps, per
connection, the number of the newest issue.
"""

import hmac
import sqlite3

from feeds.sandbox.clock import HOUR
from feeds.sandbox.store import next_number, signing_key

OTP_LIFE = HOUR
TIME_DIGITS, ISSUE_DIGITS, HASH_DIGITS = 11, 9, 12
OTP_DIGITS = TIME_DIGITS + ISSUE_DIGITS + HASH_DIGITS


class LinkMint:
    """Mints the fresh links of one reply.

    Args:
        db: Open transaction.
        now: The stand-in's time.
        public_url: Where browsers reach the stand-in, no trailing slash.
        strict: A new link kills the older ones of its connection.
    """

    def __init__(self, db: sqlite3.Connection, now: float, public_url: str, strict: bool) -> None:
        self._db = db
        self._now = int(now)
        self._strict = strict
        self._minted: list[str] = []
        self._key = signing_key(db)
        self._issue = 0
        self.public_url = public_url

    def url(self, company_id: str, connection_id: str) -> str:
        """Return a fresh link, good for one hour."""
        if self._strict:
            self._minted.append(connection_id)
        return self.aside(company_id, connection_id)

    def aside(self, company_id: str, connection_id: str) -> str:
        """Return a fresh link that does not replace the one the caller holds; in strict mode it never opens."""
        if not self._issue:
            self._issue = next_number(self._db, "otp_issue")
        otp = _otp(self._key, connection_id, self._now, self._issue)
        return f"{self.public_url}/link/company/{company_id}/connection/{connection_id}?otp={otp}"

    def supersede(self) -> None:
        """Kill the links older than the ones just minted; call when the reply is complete."""
        updates = ((self._issue, connection_id) for connection_id in self._minted)
        self._db.executemany("UPDATE connections SET otp_issue = ? WHERE id = ?", updates)


def otp_is_good(db: sqlite3.Connection, connection_id: str, otp: str, now: float, strict: bool) -> bool:
    """Tell whether an otp opens a connection's Link page: ours, at most an hour old, and in strict mode the newest."""
    if len(otp) != OTP_DIGITS or not otp.isascii() or not otp.isdigit():
        return False
    issued, issue = int(otp[:TIME_DIGITS]), int(otp[TIME_DIGITS:-HASH_DIGITS])
    genuine = hmac.compare_digest(_otp(signing_key(db), connection_id, issued, issue), otp)
    if not genuine or now - issued > OTP_LIFE:
        return False
    if not strict:
        return True
    row = db.execute("SELECT otp_issue FROM connections WHERE id = ?", (connection_id,)).fetchone()
    return row is not None and row["otp_issue"] == issue


def _otp(key: bytes, connection_id: str, issued: int, issue: int) -> str:
    stamp = f"{issued:0{TIME_DIGITS}d}{issue:0{ISSUE_DIGITS}d}"
    digest = hmac.digest(key, f"{connection_id}{stamp}".encode(), "sha256")
    return f"{stamp}{int.from_bytes(digest[:8]) % 10**HASH_DIGITS:0{HASH_DIGITS}d}"
