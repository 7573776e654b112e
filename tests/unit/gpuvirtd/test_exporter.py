# SPDX-License-Identifier: Apache-2.0
"""Metrics over HTTP: what is served where, and what happens to those who ask for something else."""

from __future__ import annotations

import http.client
import re
import socket
from pathlib import Path

import pytest
from fake_shim import until

from gpuvirt.errors import ConfigError
from gpuvirtd.exporter import CONNECTIONS, parse_address, remove_stale

CONFIG = '[memory]\nreserve = "0"\n[metrics]\nlisten = {}\n'


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=20)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(20)
        self.sock.connect(str(self.path))


def served(daemon) -> int:
    """The port that the daemon has chosen."""
    found = re.search(r"metrics_served\S*\s.*127\.0\.0\.1:(\d+)", plain(daemon.log.read_text()))
    assert found is not None, daemon.log.read_text()
    return int(found[1])


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def ask(connection, method="GET", path="/metrics"):
    connection.request(method, path)
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    return answer.status, body, answer.getheader("Content-Type"), answer.getheader("Content-Length")


@pytest.fixture
def open_daemon(new_daemon, folder):
    return new_daemon(config=CONFIG.format(f'["127.0.0.1:0", "{folder}/m.sock"]')).start()


def test_both_ways_serve_what_the_command_prints(open_daemon, folder):
    tcp = lambda: http.client.HTTPConnection("127.0.0.1", served(open_daemon), timeout=20)  # noqa: E731
    for connection in (tcp(), UnixConnection(folder / "m.sock")):
        status, body, kind, length = ask(connection)
        assert (status, kind) == (200, "text/plain; version=0.0.4; charset=utf-8")
        assert int(length) == len(body.encode())
        names = re.findall(r"^# TYPE (\S+)", body, re.M)
        assert names == re.findall(r"^# TYPE (\S+)", open_daemon.admin.call("metrics")["text"], re.M)
        assert "gpuvirt_gpu_wait_seconds" in names and "gpuvirt_build_info" in names
    status, body, _, length = ask(tcp(), "HEAD")
    assert (status, body) == (200, "") and int(length) > 1000
    assert ask(tcp(), path="/")[:2] == (200, "gpuvirtd: see /metrics\n")
    assert ask(tcp(), path="/metrics?x=1")[0] == 200
    assert ask(tcp(), path="/etc/passwd")[0] == 404
    assert ask(tcp(), "POST")[0] == 405
    assert (folder / "m.sock").stat().st_mode & 0o777 in (0o600, 0o666)


@pytest.mark.parametrize(
    "rubbish", [b"GET\r\n\r\n", b"\x16\x03\x01\r\n\r\n", b"GET /metrics HTTP/9\r\n\r\n", b"x" * 20000]
)
def test_rubbish(open_daemon, folder, rubbish):
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(20)
        connection.connect(str(folder / "m.sock"))
        connection.sendall(rubbish)
        assert b" 400 " in connection.recv(4096)
    assert ask(UnixConnection(folder / "m.sock"))[0] == 200


def test_who_says_nothing_keeps_nobody_away_for_ever(open_daemon, folder):
    def full():
        silent = [UnixConnection(folder / "m.sock") for _ in range(CONNECTIONS)]
        for connection in silent:
            connection.connect()
        status = ask(UnixConnection(folder / "m.sock"))[0]
        for connection in silent:
            connection.close()
        return status == 503

    until(full, what="too many at once")
    until(lambda: ask(UnixConnection(folder / "m.sock"))[0] == 200, what="room for one")


def test_nothing_is_served_unless_asked_for(new_daemon):
    daemon = new_daemon().start()
    assert "metrics_served" not in daemon.log.read_text()


def test_an_address_that_is_taken_stops_no_daemon(new_daemon, folder):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        daemon = new_daemon(config=CONFIG.format(f'["127.0.0.1:{port}", "{folder}/m.sock"]')).start()
        log = plain(daemon.log.read_text())
        assert "metrics_not_served" in log and f"127.0.0.1:{port}" in log
        assert ask(UnixConnection(folder / "m.sock"))[0] == 200


def test_the_socket_of_a_killed_daemon_is_replaced(open_daemon, folder):
    open_daemon.stop(kill=True)
    assert (folder / "m.sock").exists()
    open_daemon.start()
    assert ask(UnixConnection(folder / "m.sock"))[0] == 200
    open_daemon.stop()
    assert not (folder / "m.sock").exists()


def test_what_is_no_socket_stays(folder):
    path = folder / "file"
    path.write_text("mine")
    remove_stale(path)
    assert path.read_text() == "mine"


def test_a_socket_that_somebody_listens_on_stays(folder):
    path = folder / "s"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
        other.bind(str(path))
        other.listen()
        remove_stale(path)
        assert path.exists()


def test_addresses():
    assert parse_address("127.0.0.1:9456") == ("127.0.0.1", 9456)
    assert parse_address(":9456") == ("127.0.0.1", 9456)
    assert parse_address("[::1]:0") == ("::1", 0)
    assert parse_address("/run/gpuvirt/m.sock") == Path("/run/gpuvirt/m.sock")
    for wrong in (
        "",
        "9456",
        "localhost:9456",
        "127.0.0.1:",
        "127.0.0.1:x",
        "1.2.3.4:70000",
        "::1",
        "m.sock",
        "/" + "x" * 110,
    ):
        with pytest.raises(ConfigError, match=r"^metrics|metrics\.listen"):
            parse_address(wrong)
