# SPDX-License-Identifier: Apache-2.0
"""The runtime folder: private, one daemon at a time."""

from __future__ import annotations

import os
import shutil
import stat

import pytest

from gpuvirt.errors import ConfigError
from gpuvirtd.runtime import Runtime, prepare_folder, take_lock

UID = os.getuid()


def test_folder_is_private_for_a_user_and_open_for_root(tmp_path):
    for uid, mode in ((UID, 0o755 if UID == 0 else 0o700),):
        prepare_folder(tmp_path / "a" / "b", uid)
        assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == mode
        prepare_folder(tmp_path / "a" / "b", uid)


def test_unsafe_folders_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="belongs to uid"):
        prepare_folder(tmp_path, UID + 1)
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    with pytest.raises(ConfigError, match="symbolic link"):
        prepare_folder(link, UID)
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(ConfigError, match="not a folder"):
        prepare_folder(file, UID)
    with pytest.raises(ConfigError, match="cannot be made"):
        prepare_folder(file / "below", UID)
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    with pytest.raises(ConfigError, match="writable by others"):
        prepare_folder(shared, UID)


def test_lock_is_exclusive_and_names_its_holder(folder):
    held = take_lock(folder)
    with pytest.raises(ConfigError, match=f"pid {os.getpid()}"):
        take_lock(folder)
    os.close(held)
    os.close(take_lock(folder))  # a dead daemon's file stays, its lock does not


def test_links_sockets_and_removal(folder):
    runtime = Runtime(folder / "run", UID)
    shim = folder / "shim.so"
    shim.touch()
    runtime.link_shims(shim, None)
    runtime.link_shims(shim, None)
    client, admin = runtime.listen()
    for name in ("libcuda.so", "libcuda.so.1"):
        assert os.path.samefile(folder / "run" / "lib" / name, shim)
    mode = 0o666 if UID == 0 else 0o600
    for name in ("client.sock", "admin.sock"):
        assert stat.S_IMODE((folder / "run" / name).stat().st_mode) == mode
    runtime.remove()
    assert list((folder / "run").iterdir()) == []
    assert client.fileno() == admin.fileno() == -1


def test_a_folder_that_was_removed_and_made_again_belongs_to_the_other_daemon(folder):
    old = Runtime(folder / "run", UID)
    old.listen()
    shutil.rmtree(folder / "run")
    shim = folder / "shim.so"
    shim.touch()
    new = Runtime(folder / "run", UID)
    new.link_shims(shim, None)
    new.listen()
    old.remove()
    assert {path.name for path in (folder / "run").iterdir()} == {"gpuvirtd.lock", "lib", "client.sock", "admin.sock"}
    new.remove()
    assert list((folder / "run").iterdir()) == []


def test_too_long_a_path(tmp_path):
    with pytest.raises(ConfigError, match="too long for a socket"):
        Runtime(tmp_path / ("x" * 100), UID).listen()
