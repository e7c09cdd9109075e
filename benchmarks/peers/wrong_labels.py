"""Finding wrong labels beside cleanlab: `benchmarks/audit_quality.py` with one more score.

    python -m benchmarks.peers.wrong_labels [--data FOLDER] [--draws 10]

cleanlab's Datalab gets the unit rows of the labelled points as features, from which it makes what
it needs; its label score is small where a label is doubtful.
"""

from __future__ import annotations

import contextlib
import io

import numpy as np

from benchmarks import audit_quality


def datalab(case: audit_quality.Case) -> np.ndarray:
    from cleanlab import Datalab

    with contextlib.redirect_stdout(io.StringIO()):  # it reports its progress
        lab = Datalab({"label": case.labels.tolist()}, label_name="label")
        lab.find_issues(features=case.unit[case.points], issue_types={"label": {}})
    return -lab.get_issues("label")["label_score"].to_numpy()


if __name__ == "__main__":
    audit_quality.SCORES["cleanlab, Datalab"] = datalab
    audit_quality.main()
