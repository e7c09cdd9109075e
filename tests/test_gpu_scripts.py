"""The scripts of `make gpu`, each at a tiny size on the CPU."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from places import ROOT

from dlp_plugins.training import events

pytestmark = pytest.mark.usefixtures("one_thread", "on_path")


@pytest.fixture
def on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))


def test_gpu_check_finds_nothing_wrong_here(tmp_path: Path, capsys: Any) -> None:
    from benchmarks import gpu_check

    code = gpu_check.main(["--device", "cpu", "--tiny", "--json", str(tmp_path / "found.json")])
    out = capsys.readouterr().out
    assert code == 0, out
    groups = json.loads((tmp_path / "found.json").read_text())["groups"]
    assert [g["name"] for g in groups] == list(gpu_check.GROUPS)
    assert all(g["cases"] > 0 and g["failed"] == 0 for g in groups)
    assert out.count(" ok") == len(groups)


def test_gpu_check_tells_of_the_first_error_and_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    from benchmarks import gpu_check

    ran = []

    def cases(s: Any) -> Any:
        wrong = torch.ones(2)
        yield "first", lambda: gpu_check.require_close(wrong, torch.zeros(2), 1e-5, "values")
        yield "second", lambda: ran.append("second")
        raise ValueError("no third case")

    monkeypatch.setattr(gpu_check, "GROUPS", {"broken": cases, "after it": lambda s: iter(())})
    assert gpu_check.main(["--device", "cpu", "--tiny"]) == 1
    out = capsys.readouterr().out
    assert ran == ["second"]
    assert "2 failed" in out
    assert "first: AssertionError: values: differs by 1.0e+00" in out
    assert "after it" in out


def test_gpu_check_has_every_component_in_some_step() -> None:
    from benchmarks import gpu_check

    chosen = gpu_check.combinations(tiny=True)
    for axis in gpu_check.AXES:
        names = gpu_check.names(axis) if axis != "precision" else ["float32", "bfloat16"]
        assert {c[axis] for c in chosen} == set(names)
    every = gpu_check.combinations(tiny=False)
    assert every[: len(chosen)] == chosen
    assert len(every) == len({tuple(c.values()) for c in every}) > 10 * len(chosen)


def test_gpu_speed_never_dies_of_a_combination(tmp_path: Path, capsys: Any) -> None:
    from benchmarks import gpu_speed

    file = tmp_path / "rows.json"
    gpu_speed.main(["--device", "cpu", "--tiny", "--json", str(file)])
    rows = json.loads(file.read_text())["rows"]
    assert all(r["seconds"] > 0 for r in rows if "what" in r)
    networks = [r for r in rows if "mode" in r]
    failed = [r for r in networks if "note" in r]
    assert {r["precision"] for r in failed} == {"TF32"}  # a CPU has none
    assert all(r["images_per_second"] > 0 for r in networks if r not in failed)
    assert "only a GPU has TF32" in capsys.readouterr().out


def test_gpu_rows_stops_by_itself_and_goes_on_to_the_same_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmarks import _parts, gpu_rows

    monkeypatch.setattr(_parts, "PART_BYTES", 20_000)
    monkeypatch.setattr(gpu_rows.gpu_speed, "measure", lambda *_: {"images_per_second": 100.0})
    # the plan of both runs, whatever the speed of the machine
    planned = {"stage_one_epochs": 2, "stage_two_epochs": 2, "start_seconds": 0.0}
    monkeypatch.setattr(gpu_rows.Rows, "plan_stage_one", lambda self: self.plan.update(planned))

    class AfterTwo(gpu_rows.Stop):
        """Stops after the second epoch that ends in this process."""

        ended = 0

        def __call__(self, event: events.Event) -> None:
            self.ended += isinstance(event, events.EpochDone) and event.stage == "propagation"
            if isinstance(event, events.EpochDone) and self.ended == 1:
                signal.raise_signal(signal.SIGINT)

    def rows(out: Path, seconds: float = 600) -> dict[str, Any]:
        arguments = ["--device", "cpu", "--tiny", "--seconds", str(seconds), "--out", str(out)]
        assert gpu_rows.main(arguments, time.monotonic()) == 0
        return json.loads((out / "rows.json").read_text())

    with monkeypatch.context() as patched:
        patched.setattr(gpu_rows, "Stop", AfterTwo)
        stopped = rows(tmp_path / "a")
    assert list(stopped["done"]) == ["supervised_digits"]
    parts = sorted(p.name for p in (tmp_path / "a").glob("state-*"))
    assert parts == stopped["state"]["parts"]
    assert len(parts) > 1
    assert all((tmp_path / "a" / p).stat().st_size <= 20_000 for p in parts)
    assert "| lp_digits | not run |" in (tmp_path / "a" / "rows.md").read_text()
    (tmp_path / "a" / parts[0]).rename(tmp_path / "kept")
    with pytest.raises(SystemExit, match=f"missing: {parts[0]}"):
        rows(tmp_path / "a")
    (tmp_path / "kept").rename(tmp_path / "a" / parts[0])

    went_on, whole = rows(tmp_path / "a"), rows(tmp_path / "b")
    assert went_on["state"] is None
    assert not list((tmp_path / "a").glob("state-*"))
    for name in whole["done"]:
        a, b = (r["done"][name]["summary"] for r in (went_on, whole))
        assert a["test_error"] == b["test_error"]
        assert a.get("pseudo_label_accuracy") == b.get("pseudo_label_accuracy")
    assert list(whole["done"]) == ["supervised_digits", "lp_digits", "network_digits"]
    both = [r["summary"]["supervised_test_error"] for r in list(whole["done"].values())[1:]]
    assert both == [whole["done"]["supervised_digits"]["summary"]["test_error"]] * 2


def test_gpu_rows_plans_what_fits(tmp_path: Path) -> None:
    """Stage two as a whole: more time gives more epochs, up to the recipe's."""
    from benchmarks import gpu_rows

    def epochs(seconds: float, speed: float) -> int:
        now = time.monotonic()
        rows = gpu_rows.Rows(gpu_rows.digits(), tmp_path, tmp_path, "cpu", now, seconds)
        summary = {"images_per_second": speed, "num_labeled": 50}
        rows.record["done"]["supervised_digits"] = {"summary": summary}
        rows.plan.update(stage_one_epochs=1, start_seconds=0.0)
        rows.plan_stage_two()
        return rows.schedule(supervised=False)["training.stage_two_epochs"]

    # an epoch: 333 images and a third of 300 at 100 images/s; two rows share 0.9 of 85 s
    assert epochs(100, 100.0) == pytest.approx(0.9 * 85 / 2 / 4.33, abs=1)
    assert epochs(10, 1.0) == 1
    assert epochs(600, 1e6) == 20
