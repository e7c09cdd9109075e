"""Whether a propagation from files fits in memory, and what is done where it does not."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from dlp_plugins.embeddings.memory import (
    ClassChunks,
    MemoryBudgetError,
    choose_chunks,
    estimate_memory,
    estimate_sharded_memory,
    estimate_stored_memory,
    refiner_fits,
)
from dlp_plugins.embeddings.options import Options
from dlp_plugins.embeddings.prior import Prior, with_prior
from dlp_plugins.embeddings.starts import with_start
from dlp_plugins.embeddings.stored import what_files_need
from dlp_plugins.errors import UsageError
from dlp_plugins.propagation import Propagator
from dlp_plugins.propagation.class_shares import ESTIMATE
from dlp_plugins.recipe.model import Recipe
from dlp_plugins.refiners.none import NoRefiner
from dlp_plugins.solvers.contract import Solver


@dataclass(frozen=True)
class MemoryFit:
    """What is to fit into a budget of bytes: so many points of `dim` numbers, and so many classes.

    started: from a classifier.
    """

    options: Options
    recipe: Recipe
    propagator: Propagator
    points: int
    dim: int
    classes: int
    prior: Prior | None
    started: bool
    budget: float

    def choose(self, device: torch.device, unfinished: bool) -> tuple[ClassChunks, bool]:
        """How many classes are solved at once, and whether large arrays go to files.

        They do where that is asked for, where such work is resumed, and where memory is short and
        everything else allows it.

        Args:
            unfinished: there is work in files.

        Raises:
            UsageError: files are asked for, and something does not allow them.
            MemoryBudgetError: it does not fit either way.
        """
        asked = self.options
        if asked.shard_rows:
            return self._by_rows(), False
        unfit = asked.given("prototypes", "start", "auto", "robust", "save_index", "multi_label")
        needs = {
            "--out": asked.table is not None,
            "--device cpu": device.type == "cpu",
            **what_files_need(self.propagator),
            **{f"no --{option.replace('_', '-')}": False for option in unfit},
        }
        possible = all(needs.values())
        wanted = asked.on_disk or (asked.resume and unfinished)
        if wanted and not possible:
            unmet = ", ".join(need for need, met in needs.items() if not met)
            raise UsageError(f"Work in files (--on-disk, --resume) needs {unmet}.")
        if wanted:
            return self._through_files(), True
        try:
            return self._in_memory(), False
        except MemoryBudgetError:
            if not possible:
                raise
            return self._through_files(), True

    @property
    def refiner_in_memory(self) -> bool:
        """Whether a refiner's arrays fit in memory, where others lie in files."""
        need = estimate_stored_memory(*self._sizes, self._refines)
        return refiner_fits(need, self.points, self.classes, self.budget)

    @property
    def _sizes(self) -> tuple[int, int, int, Solver]:
        return self.points, self.dim, self.propagator.graph.k, self.propagator.solver

    @property
    def _refines(self) -> bool:
        return not isinstance(self.propagator.refiner, NoRefiner)

    def _in_memory(self) -> ClassChunks:
        n, d, k, solver = self._sizes
        estimates = self.propagator.class_shares == ESTIMATE
        need = estimate_memory(n, d, k, solver, self.recipe.graph.name, self._refines, estimates)
        need = with_prior(need, self.prior, n)
        if self.options.auto or self.started:
            need = with_start(need, n, d)
        if self.options.index is not None:
            need = need.with_index(n, d, k)
        return choose_chunks(need, n, self.classes, self.budget, solver.columnwise)

    def _through_files(self) -> ClassChunks:
        by_blocks = self.propagator.refiner.by_blocks
        need = estimate_stored_memory(*self._sizes, self._refines, by_blocks)
        need = with_prior(need, self.prior, self.points)
        return choose_chunks(need, self.points, self.classes, self.budget)

    def _by_rows(self) -> ClassChunks:
        processes = self.propagator.processes.size
        need = estimate_sharded_memory(*self._sizes, processes)
        return choose_chunks(need, self.points, self.classes, self.budget, processes=processes)
