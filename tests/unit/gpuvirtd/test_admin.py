# SPDX-License-Identifier: Apache-2.0
"""The admin socket: right and wrong requests, and what the client says when nobody answers."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys

import pytest
from fake_shim import MIB, until

from gpuvirt.admin import AdminClient
from gpuvirt.errors import DaemonUnavailable, ProtocolError, RefusedError


def test_created_job_gets_all_that_it_needs(new_daemon, shims):
    daemon = new_daemon(config='[driver.environment]\nGPUVIRT_SOFTGPU_BOARD = "x"\n').start()
    answer = daemon.create(shims(), "train", memory=100 * MIB, weight=300)
    environment = answer["environment"]
    assert environment == {
        "GPUVIRT_SOFTGPU_BOARD": "x",
        "GPUVIRT_SOCKET": daemon.socket,
        "GPUVIRT_JOB": answer["token"],
        "GPUVIRT_DRIVER": "/nonexistent/libcuda.so.1",
        "GPUVIRT_NVML": "/nonexistent/libnvidia-ml.so.1",
    }
    assert len(answer["token"]) == 32
    assert answer["preload"] == str(daemon.shim)
    assert answer["library_path"] == str(daemon.runtime / "lib")
    job = daemon.job(answer["job"])
    assert (job["name"], job["state"], job["weight"], job["memory"]) == ("train", "new", 300, 100 * MIB)
    assert answer["token"] not in json.dumps(daemon.status())


def test_quota_of_the_job_is_published(daemon, attach):
    shim, job = attach("small", memory=64 * MIB)
    assert shim.view()["quota"] == 64 * MIB
    assert daemon.job(job)["memory_quota"] == 64 * MIB


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"memory": 0}, "memory: expected `int` >= 1"),
        ({"memory": -5}, "memory: expected `int` >= 1"),
        ({"memory": 10 << 40}, "--memory 10 TiB is more than the largest GPU has (512 MiB)"),
        ({"memory": 1 << 63}, "memory: expected `int`"),
        ({"memory": "20G"}, "memory: expected `int | null`, got `str`"),
        ({"weight": 0}, "weight: expected `int` >= 1"),
        ({"weight": 1001}, "weight: expected `int` <= 1000"),
        ({"command": []}, "command: expected `array` of length >= 1"),
        ({"name": "a\nb"}, "name: expected `str` matching regex"),
        ({"pid": 1}, "neither this process nor one that it started"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_wrong_requests_are_refused_with_the_reason(daemon, arguments, words):
    with pytest.raises(RefusedError) as caught:
        daemon.admin.call("create_job", **({"name": "a", "command": ["x"]} | arguments))
    assert words in caught.value.message
    assert daemon.admin.call("ping")["generation"] == 1  # the same connection goes on
    assert daemon.status()["jobs"] == []


def test_memory_over_the_device_may_be_allowed(new_daemon, shims):
    daemon = new_daemon(config='[memory]\nmemory_over_device = "allow"\nreserve = "0"\n').start()
    shim = shims()
    answer = daemon.create(shim, memory=10 << 40)
    shim.hello(daemon.socket, answer["token"], daemon.uuid())
    assert shim.view()["quota"] == daemon.total  # a promise that can be kept


def raw(daemon, data: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(5)
        connection.connect(str(daemon.runtime / "admin.sock"))
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it may have heard enough before the end
            connection.sendall(data)
        return connection.makefile("rb").readline()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"nonsense\n", "not a JSON object"),
        (b"[1]\n", "expected `object`"),
        (b'{"op": "explode"}\n', "invalid value 'explode'"),
        (b'{"name": "a"}\n', "missing required field `op`"),
        (b"\xff\xfe\n", "not a JSON object"),
        (b'{"op": "job_started", "job": "j9", "pid": 1}\n', "there is no job 'j9'"),
        (b"x" * (1 << 20) + b"y" * 100000, "a line longer than"),
        (b"x" * (6 << 20), "a line longer than"),
    ],
)
def test_rubbish_gets_an_error_line(daemon, line, words):
    answer = json.loads(raw(daemon, line))
    assert answer["ok"] is False
    assert words in answer["error"]
    assert daemon.admin.call("ping")["pid"] == daemon.process.pid


def test_too_many_connections_get_the_reason(daemon):
    held = [socket.socket(socket.AF_UNIX) for _ in range(258)]  # more than there are places
    try:
        answers = []
        for connection in held:
            connection.settimeout(5)
            connection.connect(str(daemon.runtime / "admin.sock"))
            connection.sendall(b'{"op": "ping"}\n')
            answers.append(json.loads(connection.recv(1000)))
        assert [answer["ok"] for answer in answers[:255]] == [True] * 255
        assert "admin connections already" in answers[-1]["error"]
    finally:
        for connection in held:
            connection.close()
    daemon.admin.close()
    until(lambda: daemon.admin.call("ping")["pid"] == daemon.process.pid, what="a place")


def test_job_ends_with_its_last_process(daemon, shims):
    shim = shims()
    answer = daemon.admin.call("create_job", name="a", command=["x"], pid=os.getpid())
    daemon.admin.call("job_started", job=answer["job"], pid=shim.pid)
    assert shim.hello(daemon.socket, answer["token"], daemon.uuid()) == "welcome"
    daemon.admin.call("end_job", job=answer["job"], exit=3)
    assert daemon.job(answer["job"])["state"] != "ended"
    shim.kill()
    job = until(lambda: (j := daemon.job(answer["job"]))["state"] == "ended" and j, what="the end")
    assert (job["exit"], job["attached"]) == (3, True)
    daemon.admin.call("end_job", job=answer["job"])  # no mistake: it has ended
    assert daemon.status(all=False)["jobs"] == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
def test_other_users_jobs_are_seen_but_not_changed(daemon, shims):
    answer = daemon.create(shims(), "mine")
    daemon.runtime.chmod(0o755)
    daemon.folder.chmod(0o755)
    code = f"""
import json, os, socket
os.setgid(65534); os.setuid(65534)
s = socket.socket(socket.AF_UNIX); s.connect({str(daemon.runtime / "admin.sock")!r}); f = s.makefile("rw")
for request in ({{"op": "status"}}, {{"op": "end_job", "job": {answer["job"]!r}}}):
    f.write(json.dumps(request) + "\\n"); f.flush(); print(f.readline(), end="")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=True)
    status, refusal = map(json.loads, done.stdout.splitlines())
    assert [job["name"] for job in status["jobs"]] == ["mine"]
    assert "belongs to root" in refusal["error"]


def test_no_daemon(tmp_path):
    with pytest.raises(DaemonUnavailable) as caught:
        AdminClient([tmp_path, tmp_path / "b"]).call("ping")
    assert caught.value.message.startswith(f"no gpuvirtd answers on {tmp_path}/admin.sock (no such file")
    assert caught.value.hint == "start one with: gpuvirtd"


def test_daemon_that_dies_in_the_middle(daemon):
    daemon.admin.call("ping")
    daemon.stop(kill=True)
    with pytest.raises(DaemonUnavailable):
        daemon.admin.call("ping")


def test_something_else_on_the_socket(folder):
    path = folder / "admin.sock"
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen()
    client = AdminClient(path, timeout_s=0.2)
    with pytest.raises(DaemonUnavailable, match="no answer in time"):
        client.call("ping")
    client = AdminClient(path, timeout_s=5)
    client._connect()
    server.accept()  # the first client's
    connection, _ = server.accept()
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n")
    with pytest.raises(ProtocolError):
        client.call("ping")
    connection.close()
    server.close()


def test_admin_client_imports_little():
    code = "import sys, gpuvirt.admin; print([m for m in ('asyncio', 'structlog', 'grpc', 'cffi') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
