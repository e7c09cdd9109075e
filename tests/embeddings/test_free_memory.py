"""The limit of a control group counts, of either version."""

from __future__ import annotations

import psutil

from dlp_plugins import environment


def test_the_limit_of_a_control_group_counts(tmp_path, monkeypatch):
    of_process = tmp_path / "cgroup"
    of_process.write_text("8:pids:/\n4:memory:/a/b\n0::/\n")
    monkeypatch.setattr(environment, "CGROUP", tmp_path)
    monkeypatch.setattr(environment, "GROUPS_OF_PROCESS", of_process)
    free = environment.free_memory()
    assert abs(free - psutil.virtual_memory().available) < 2**30
    for group in (tmp_path / "memory", tmp_path / "memory" / "a" / "b"):
        group.mkdir(parents=True, exist_ok=True)
        (group / "memory.usage_in_bytes").write_text("90000000\n")
        (group / "memory.limit_in_bytes").write_text("100000000\n")
        # files that were read are dropped where room is needed; shared memory is not
        stat = "cache 1\ntotal_cache 50000000\ntotal_shmem 20000000\n"
        (group / "memory.stat").write_text(stat)
        assert environment.free_memory() == 40_000_000
    (tmp_path / "memory.max").write_text("30000000\n")
    (tmp_path / "memory.current").write_text("10000000\n")
    assert environment.free_memory() == 20_000_000
    (tmp_path / "memory.stat").write_text("anon 1\nfile 8000000\nshmem 3000000\n")
    assert environment.free_memory() == 25_000_000
    (tmp_path / "memory.max").write_text("max\n")
    assert environment.free_memory() == 40_000_000
