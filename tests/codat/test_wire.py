"""Faults of a real connection, made by a small server on a socket."""

import gzip
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from feeds.codat import CodatClient
from feeds.codat import client as client_module
from feeds.codat.errors import CodatError, ConnectionLost, MalformedReply, Timeout, Unauthorized, Unreachable

from .samples import COMPANY_ID, KEY

Handler = Callable[[socket.socket], None]


@contextmanager
def server(handle: Handler) -> Iterator[str]:
    """Serve each connection with `handle`, after the request has come in; yields the base URL."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    def answer(connection: socket.socket) -> None:
        with connection:
            read_request(connection)
            # The client may hang up, as some tests want it to.
            with suppress(OSError):
                handle(connection)

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        # Closing alone would leave accept() waiting.
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def read_request(connection: socket.socket) -> bytes:
    """Read a whole request: closing with some of it unread would reset the connection. Empty when there is none."""
    data = b""
    while b"\r\n\r\n" not in data:
        received = connection.recv(65536)
        if not received:
            return b""
        data += received
    head, _, body = data.partition(b"\r\n\r\n")
    length = re.search(rb"Content-Length: (\d+)", head)
    while length is not None and len(body) < int(length[1]):
        body += connection.recv(65536)
    return data


def reply(body: bytes, *, length: int | None = None, status: str = "200 OK") -> bytes:
    promised = len(body) if length is None else length
    return f"HTTP/1.1 {status}\r\nContent-Length: {promised}\r\n\r\n".encode() + body


def write(base_url: str, **settings: float) -> CodatError:
    client = CodatClient(base_url, "k", **settings)  # type: ignore[arg-type]
    with pytest.raises(CodatError) as caught:
        client.create_connection(COMPANY_ID, idempotency_key=KEY)
    return caught.value


def test_a_refused_connection_has_sent_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

    error = write(f"http://127.0.0.1:{port}")

    assert type(error) is Unreachable
    assert not error.outcome_unknown


def test_an_unknown_name_has_sent_nothing() -> None:
    error = write("http://codat.invalid")

    assert type(error) is Unreachable
    assert not error.outcome_unknown


def test_a_connection_that_is_never_made_has_sent_nothing() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        # With the queue of a listener that never accepts full, further connections hang.
        waiting = [socket.socket() for _ in range(4)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(address)
        error = write(f"http://127.0.0.1:{address[1]}", connect_timeout=0.3)
        for each in waiting:
            each.close()

    assert type(error) is Timeout
    assert not error.outcome_unknown


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl to make a certificate with")
def test_a_server_without_a_trusted_certificate_has_got_nothing(tmp_path: Path) -> None:
    trusted_by_nobody = _self_signed(tmp_path)

    def shake_hands(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        # The client refuses the certificate: that is the test.
        with connection, suppress(OSError):
            trusted_by_nobody.wrap_socket(connection, server_side=True)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=shake_hands, args=(listener,), daemon=True).start()
        error = write(f"https://127.0.0.1:{listener.getsockname()[1]}")

    assert type(error) is Unreachable
    assert not error.outcome_unknown


def _self_signed(folder: Path) -> ssl.SSLContext:
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=127.0.0.1"]
        + ["-keyout", str(folder / "key.pem"), "-out", str(folder / "certificate.pem")],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "certificate.pem", folder / "key.pem")
    return context


LOST: dict[str, tuple[Handler, type[CodatError]]] = {
    "no answer in time": (lambda connection: time.sleep(2), Timeout),
    "closed without an answer": (lambda connection: None, ConnectionLost),
    "closed within the head": (lambda connection: connection.sendall(b"HTTP/1.1 200 OK\r\nConte"), MalformedReply),
    "closed within the body": (lambda connection: connection.sendall(reply(b'{"id": ', length=99)), ConnectionLost),
    "no HTTP at all": (lambda connection: connection.sendall(b"220 mail.test ESMTP\r\n"), ConnectionLost),
    "no JSON": (lambda connection: connection.sendall(reply(b"<html></html>")), MalformedReply),
    "JSON cut off": (lambda connection: connection.sendall(reply(b'{"id": "x"')), MalformedReply),
    "no text": (lambda connection: connection.sendall(reply(b"\xff\xfe\x00")), MalformedReply),
}


@pytest.mark.parametrize(("handle", "kind"), LOST.values(), ids=LOST.keys())
def test_a_write_whose_reply_is_lost_may_have_happened(handle: Handler, kind: type[CodatError]) -> None:
    with server(handle) as base_url:
        error = write(base_url, read_timeout=0.3)

    assert type(error) is kind
    assert error.retryable
    assert error.outcome_unknown
    assert error.__context__ is None


def chunked(*chunks: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Encoding: gzip\r\n\r\n"
    return head + b"".join(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n" for chunk in chunks) + end


def test_a_compressed_reply_in_pieces_is_read_whole() -> None:
    name = "".join(chr(97 + number * number % 26) for number in range(200_000))
    packed = gzip.compress(json.dumps({"id": "x", "platformName": name}).encode())
    pieces = [packed[:5], packed[5:12], packed[12:]]

    with server(lambda connection: connection.sendall(chunked(*pieces))) as base_url:
        connection = CodatClient(base_url, "k").get_connection(COMPANY_ID, "c")

    assert connection.platform_name == name


def test_a_reply_in_pieces_that_breaks_off_is_lost() -> None:
    packed = gzip.compress(b'{"id": "x"}')

    with server(lambda connection: connection.sendall(chunked(packed[:12], end=b"ff\r\n"))) as base_url:
        error = write(base_url)

    assert type(error) is ConnectionLost
    assert error.outcome_unknown


def test_a_body_that_stops_halfway_is_a_timeout() -> None:
    def stall(connection: socket.socket) -> None:
        connection.sendall(reply(b'{"id": ', length=99))
        time.sleep(2)

    with server(stall) as base_url:
        error = write(base_url, read_timeout=0.3)

    assert type(error) is Timeout
    assert error.outcome_unknown


def test_a_trickle_ends_at_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "TOTAL_TIMEOUT", 0.5)

    def trickle(connection: socket.socket) -> None:
        connection.sendall(reply(b"", length=1000))
        for _ in range(100):
            connection.sendall(b" " * 10)
            time.sleep(0.05)

    started = time.monotonic()
    with server(trickle) as base_url:
        error = write(base_url, read_timeout=20)

    assert type(error) is Timeout
    assert time.monotonic() - started < 2


def test_a_refusal_counts_when_its_explanation_is_lost() -> None:
    def cut_off(connection: socket.socket) -> None:
        connection.sendall(reply(b'{"error": ', length=99, status="401 Unauthorized"))

    with server(cut_off) as base_url:
        assert type(write(base_url)) is Unauthorized


def keep_answering(connection: socket.socket, kept: list[socket.socket]) -> None:
    """Answer every request on one connection, as keep-alive wants it."""
    kept.append(connection)
    connection.sendall(reply(b'{"id": "x"}'))
    while read_request(connection):
        connection.sendall(reply(b'{"id": "x"}'))


def test_one_client_serves_many_threads_over_kept_connections() -> None:
    kept: list[socket.socket] = []

    with server(lambda connection: keep_answering(connection, kept)) as base_url, ThreadPoolExecutor(4) as threads:
        client = CodatClient(base_url, "k")
        companies = list(threads.map(lambda _: client.get_company(COMPANY_ID), range(40)))

    assert {company.id for company in companies} == {"x"}
    assert len(kept) <= 4


def test_a_forked_child_does_not_read_the_replies_to_its_parent() -> None:
    kept: list[socket.socket] = []

    with server(lambda connection: keep_answering(connection, kept)) as base_url:
        client = CodatClient(base_url, "k")
        client.get_company(COMPANY_ID)
        child = os.fork()
        if child == 0:
            # Nothing of pytest may run in the child.
            os._exit(client.get_company(COMPANY_ID).id != "x")
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        client.get_company(COMPANY_ID)

    assert len(kept) == 2
