"""Poisson MBO of graphlearning on graphs that `poisson_mbo.py` wrote, in an environment of its own.

    python _graphlearning_peer.py PROBLEM.npz

Prints a line of JSON for each label set: its number, accuracy in percent over the unlabelled
points, wall seconds and CPU seconds.
"""

from __future__ import annotations

import json
import sys
import time

import graphlearning as gl
import numpy as np
import scipy.sparse as sp


def main(path: str) -> None:
    problem = np.load(path)
    n = len(problem["truth"])
    parts = (problem["data"], problem["indices"], problem["indptr"])
    w = sp.csr_matrix(parts, shape=(n, n))
    for number, labels in zip(problem["numbers"], problem["labels"], strict=True):
        known = np.flatnonzero(labels >= 0)
        wall, cpu = time.perf_counter(), time.process_time()
        model = gl.ssl.poisson_mbo(w, class_priors=problem["priors"])
        found = model.fit_predict(known, labels[known])
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        accuracy = 100 * float((found == problem["truth"])[labels < 0].mean())
        line = {"set": int(number), "accuracy": accuracy, "wall": wall, "cpu": cpu}
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
