"""A batch shared among processes: every image once, and the loss of the whole."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from dlp_cli.commands.run import launcher
from steps import AUGMENT, NAMES, TOTAL_STEPS, begin, make_batch, propagated

from dlp_plugins.consistency import Step
from dlp_plugins.consistency.contract import Counts
from dlp_plugins.errors import UsageError
from dlp_plugins.processes.group import Processes
from dlp_plugins.processes.launch import Launch, is_first, launched
from dlp_plugins.training import batches

# Nothing is drawn by these once the views are plain.
STEADY = [name for name in NAMES if name not in ("ict", "mixup", "vat")]


def processes(size: int) -> list[Processes]:
    return [Processes(Launch(rank, size, rank, size)) for rank in range(size)]


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("labeled", [0, 1, 4, 25])
@pytest.mark.parametrize("unlabeled", [0, 6, 75])
def test_every_image_of_a_batch_is_one_process_s(size, labeled, unlabeled):
    batch = torch.arange(labeled + unlabeled)
    found = [batches.share(batch, labeled, p) for p in processes(size)]
    assert torch.equal(torch.cat([rows for rows, _ in found]).sort().values, batch)
    for rows, own in found:
        assert (rows[:own] < labeled).all()
        assert (rows[own:] >= labeled).all()
    sizes = [len(rows) for rows, _ in found]
    for p in processes(size):
        assert batches.share_sizes(len(batch), labeled, p) == sizes
    assert max(sizes) - min(sizes) <= 1 + (labeled > 0 and unlabeled > 0 and size > 2)


@pytest.mark.parametrize("stage_two", [False, True])
@pytest.mark.parametrize("name", STEADY)
def test_the_mean_of_the_processes_terms_is_the_whole_batchs(name, stage_two):
    whole = make_batch(labeled=5, unlabeled=9)
    whole = propagated(whole, soft=True) if stage_two else whole
    method, student = begin(name)
    student.eval()  # batch norm's statistics would be of each share
    if method.teacher is not None:
        method.teacher.eval()

    def terms(batch):
        step = Step(student, batch, AUGMENT.plain, AUGMENT.plain, 3, 1.0, TOTAL_STEPS)
        return method.losses(step)

    expected = terms(whole)
    size, totals = 4, dict.fromkeys(expected, 0.0)
    for p in processes(size):
        rows, own = batches.share(torch.arange(len(whole)), 5, p)
        assert own in (1, 2)
        part = replace(
            whole,
            **{k: getattr(whole, k)[rows] for k in ("images", "index", "labels", "certainty")},
            probabilities=None if whole.probabilities is None else whole.probabilities[rows],
            num_labeled=own,
            whole=Counts(5, len(whole)),
        )
        if name == "temporal_ensembling":
            method.begin_stage(student, 40, TOTAL_STEPS)
        for term, loss in terms(part).items():
            totals[term] += float(loss.detach()) * size * part.part(method.mean_of(term)) / size
    for term, loss in expected.items():
        assert totals[term] == pytest.approx(float(loss.detach()), rel=1e-5, abs=1e-7)


def test_terms_of_random_methods_say_what_they_are_means_of():
    found = {name: begin(name)[0] for name in ("ict", "mixup", "vat")}
    assert found["ict"].mean_of("consistency") == "unlabeled"
    assert found["vat"].mean_of("consistency") == "batch"
    assert [found[n].mean_of("supervised") for n in found] == ["labeled", "batch", "labeled"]


KNOWN = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}


def test_what_a_launcher_says(monkeypatch):
    assert launched() == Launch(0, 1, 0, 1)
    assert is_first()
    assert launcher() == ["dlp"]
    for name, value in KNOWN.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert launched() == Launch(1, 2, 1, 2)
    assert not is_first()
    assert launcher() == ["torchrun", "--nproc-per-node", "2", "-m", "dlp_cli"]
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")  # two machines
    assert launcher() == ["dlp"]
    monkeypatch.delenv("MASTER_PORT")
    with pytest.raises(UsageError, match="MASTER_PORT do not say"):
        launched()
