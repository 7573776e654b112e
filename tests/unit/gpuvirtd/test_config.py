# SPDX-License-Identifier: Apache-2.0
"""Settings: precedence, and mistakes that are named."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from gpuvirt.errors import ConfigError
from gpuvirtd import config as settings


@pytest.fixture
def load(tmp_path):
    def make(text, environ=None, flags=None):
        path = tmp_path / "gpuvirt.toml"
        path.write_text(text)
        return settings.load(path, environ or {}, flags or {})

    return make


def test_nothing_set(load):
    config = load("")
    assert config.time.quantum == "20ms"
    assert settings.duration_of(config, "time", "recovery_grace") == 5_000_000_000


def test_no_bound_on_work_in_flight(load):
    config = load('[time]\nin_flight = "0"\nin_flight_urgent = " 0 "\n')
    assert settings.duration_of(config, "time", "in_flight") == 0
    assert settings.duration_of(config, "time", "in_flight_urgent") == 0


def test_file_then_variable_then_flag(load):
    text = '[time]\nquantum = "30ms"\n[daemon]\nlog_level = "error"\nruntime = "/a"\n'
    assert load(text).time.quantum == "30ms"
    environ = {"GPUVIRT_QUANTUM": "40ms", "GPUVIRT_LOG": "debug", "GPUVIRT_RUNTIME": "/b", "GPUVIRT_DRIVER": "/d"}
    config = load(text, environ, {("daemon", "runtime"): "/c"})
    assert (config.time.quantum, config.daemon.log_level, config.daemon.runtime) == ("40ms", "debug", "/c")
    assert config.driver.library == "/d"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[time]\nquantm = "1ms"\n', ["unknown key time.quantm", "did you mean 'quantum'?"]),
        ("[tmie]\n", ["unknown section [tmie]", "did you mean 'time'?"]),
        ("time = 3\n", ["time must be a section"]),
        ("[time]\nquantum = 20\n", ["time.quantum", "expected `str`, got `int`"]),
        ('[time]\nquantum = "20 parsecs"\n', ["time.quantum", "'20 parsecs'", "20ms"]),
        ('[time]\nquantum = "0ms"\n', ["time.quantum", "zero"]),
        ('[time]\nin_flight = "little"\n', ["time.in_flight", "'little'", "5ms, or 0 for no bound"]),
        ('[time]\nin_flight_urgent = "-1ms"\n', ["time.in_flight_urgent", "'-1ms'", "5ms, or 0 for no bound"]),
        ("[time]\nin_flight = 0\n", ["time.in_flight", "expected `str`, got `int`"]),
        ("[time]\nswap_share = 0.0\n", ["time.swap_share", "> 0"]),
        ('[daemon]\nlog_level = "loud"\n', ["daemon.log_level", "'loud'"]),
        ('[daemon]\nruntime = "here"\n', ["daemon.runtime", "absolute"]),
        ('[driver]\nlibrary = "libcuda.so.1"\n', ["driver.library", "absolute"]),
        ('[driver.environment]\nLD_PRELOAD = "x"\n', ["driver.environment", "LD_PRELOAD"]),
        ('[memory]\nhost_budget = "half"\n', ["memory.host_budget", "'half'"]),
        ('[memory]\nhost_budget = "150%"\n', ["memory.host_budget", "'150%'"]),
        ('[memory]\npinned_per_process = "much"\n', ["memory.pinned_per_process", "'much'"]),
        ('[memory]\nreserve = "lots"\n', ["memory.reserve", "'lots'"]),
        ('[memory]\nreserve = "-1%"\n', ["memory.reserve", "'-1%'"]),
        ('[memory]\nmemory_over_device = "maybe"\n', ["memory.memory_over_device", "'maybe'"]),
        ("[limits]\nconnections_per_user = 0\n", ["limits.connections_per_user", ">= 1"]),
        ('[gpus]\ndevices = "some"\n', ["gpus.devices"]),
        ("[time\n", ["not TOML"]),
    ],
)
def test_mistakes_name_file_key_and_reason(load, text, words):
    with pytest.raises(ConfigError) as caught:
        load(text)
    for word in [*words, "gpuvirt.toml"]:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_wrong_variable(load):
    with pytest.raises(ConfigError, match=r"time\.quantum"):
        load("", {"GPUVIRT_QUANTUM": "soon"})


def test_missing_file(tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        settings.load(tmp_path / "none", {}, {})


def test_host_budget():
    assert settings.share_of("host_budget", "50%", 1000) == 500
    assert settings.share_of("host_budget", "4K", 1000) == 4096


def gpuvirtd(*arguments, **environ):
    return subprocess.run(
        [sys.executable, "-m", "gpuvirtd", *map(str, arguments)],
        env={"PATH": os.environ["PATH"], **environ},
        capture_output=True,
        text=True,
        timeout=30,
    )


def test_check_config_prints_what_is_in_force(tmp_path):
    path = tmp_path / "a.toml"
    path.write_text('[time]\nquantum = "50ms"\n')
    done = gpuvirtd("--config", path, "--check-config", GPUVIRT_LOG="warning")
    assert done.returncode == 0
    shown = json.loads(done.stdout)
    assert (shown["time"]["quantum"], shown["daemon"]["log_level"]) == ("50ms", "warning")


def test_mistakes_end_the_daemon_with_one_line(tmp_path):
    path = tmp_path / "a.toml"
    path.write_text("[time]\nquantm = 1\n")
    for more in ([], ["--check-config"]):
        done = gpuvirtd("--config", path, *more)
        assert done.returncode == 1
        assert done.stderr == f"gpuvirtd: error: {path}: unknown key time.quantm; did you mean 'quantum'?\n"


def test_no_driver_is_one_line(tmp_path):
    done = gpuvirtd("--runtime", tmp_path / "run", GPUVIRT_DRIVER="/none/libcuda.so.1")
    assert done.returncode == 1
    assert done.stderr.startswith("gpuvirtd: error: ")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "run" / "client.sock").exists()


@pytest.mark.parametrize(
    ("agent", "says"),
    [
        ({"listen": "0.0.0.0:7411"}, "can be reached from other machines"),
        ({"listen": "/run/agent.sock"}, "is not ADDRESS:PORT"),
        ({"listen": "here"}, "agent.listen: 'here'"),
        ({"listen": "127.0.0.1:1", "certificate": "/a"}, "are needed together"),
        ({"listen": "0.0.0.0:1", "certificate": "/a", "key": "/b", "authority": "/c"}, "nobody may call"),
        ({"logs": "jobs"}, "agent.logs: 'jobs' is not an absolute path"),
        ({"roles": {"a": "admin"}}, "agent.roles"),
    ],
)
def test_an_agent_that_anybody_could_command_is_refused(agent: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        settings.check_values(settings.convert({"agent": agent}, "file"), "file")
    assert says in str(caught.value)


def test_an_agent_listens_on_this_machine_or_with_certificates() -> None:
    files = {"certificate": "/a", "key": "/b", "authority": "/c", "roles": {"s": "scheduler"}}
    for agent in ({}, {"listen": "127.0.0.1:7411"}, {"listen": "[::1]:0"}, {"listen": "0.0.0.0:7411", **files}):
        settings.check_values(settings.convert({"agent": agent}, "file"), "file")
