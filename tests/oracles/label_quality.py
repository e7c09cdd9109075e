"""Good labels from a few: class mass, rescaling and the discriminant, in plain NumPy and SciPy.

A float64 port of the published steps, for tests: nothing here comes from `dlp_plugins`, and clarity
goes before speed. Shapes: n points, d numbers each, c classes, m of the points labelled. `given`
[n, c] holds a labelled point's distribution (one-hot for a plain label), zeros elsewhere; a point
is labelled where its row is not zero. pi [c] are the shares of the classes among unlabelled points.
"""

from __future__ import annotations

import numpy as np
import scipy.linalg
import scipy.sparse as sp
import scipy.sparse.linalg
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

STEPS, SMOOTHING_STEPS, BALANCE_STEPS = 8, 3, 30


def one_hot(labels: np.ndarray, c: int) -> np.ndarray:
    """`given` [n, c] of labels [n], -1 where there is none."""
    return (labels[:, None] == np.arange(c)).astype(float)


def unit_rows(x: np.ndarray) -> np.ndarray:
    """Rows over their Euclidean norms; a zero row stays zero."""
    norm = np.linalg.norm(x, axis=1, keepdims=True)
    return x / np.where(norm > 0, norm, 1)


def sum_to_one(p: np.ndarray) -> np.ndarray:
    """Rows over their sums; a zero row stays zero."""
    total = p.sum(axis=1, keepdims=True)
    return p / np.where(total > 0, total, 1)


def rescale(x: np.ndarray) -> np.ndarray:
    """A: unit rows, less the column means, column j over max(s_j / median(s), 1), unit rows.

    s_j is the standard deviation (over n) of column j. A zero row has no direction: it stays zero
    and is left out of means and deviations.
    """
    x = unit_rows(np.asarray(x, dtype=np.float64))
    used = x.any(axis=1)
    x[used] -= x[used].mean(axis=0)
    s = x[used].std(axis=0)
    return unit_rows(x / np.maximum(s / np.median(s), 1))


def graph(f: np.ndarray, k: int = 10, gamma: float = 3) -> sp.csr_matrix:
    """Wn [n, n] = D^(-1/2) (A + A^T) D^(-1/2) of unit rows f [n, d].

    a_ij = max(f_i . f_j, 0)^gamma where j is among the k nearest of i, else 0.
    """
    n = len(f)
    k = min(k, n - 1)
    similarity = f @ f.T
    np.fill_diagonal(similarity, -np.inf)  # a point is not its own neighbour
    nearest = np.argpartition(-similarity, k - 1, axis=1)[:, :k]
    weight = np.maximum(np.take_along_axis(similarity, nearest, axis=1), 0) ** gamma
    rows = np.repeat(np.arange(n), k)
    a = sp.csr_matrix((weight.ravel(), (rows, nearest.ravel())), shape=(n, n))
    w = a + a.T
    degree = np.asarray(w.sum(axis=1)).ravel()
    scale = sp.diags(np.where(degree > 0, degree, np.inf) ** -0.5)
    return (scale @ w @ scale).tocsr()


def spread(wn: sp.csr_matrix, given: np.ndarray, alpha: float = 0.9) -> np.ndarray:
    """Z [n, c] = (I - alpha Wn)^(-1) Y, Y the columns of `given` over their sums."""
    total = given.sum(axis=0)
    y = given / np.where(total > 0, total, 1)
    system = sp.identity(len(given), format="csr") - alpha * wn
    solve = [scipy.sparse.linalg.cg(system, column, rtol=1e-12, atol=0) for column in y.T]
    assert all(info == 0 for _, info in solve)
    z = np.stack([column for column, _ in solve], axis=1)
    # a class that has no label in a component has scores of 0 there, not rounding
    number, component = sp.csgraph.connected_components(wn, directed=False)
    reached = np.zeros((number, given.shape[1]), dtype=bool)
    np.logical_or.at(reached, component, given > 0)
    return np.where(reached[component], z, 0)


def class_mass(z: np.ndarray, unlabeled: np.ndarray, pi: np.ndarray) -> np.ndarray:
    """P [n, c]: z clipped at 0, column j times n_u pi_j over its sum, rows to sum 1.

    The sum is over the n_u unlabelled points (Zhu, Ghahramani, Lafferty, 2003). A column or row of
    zeros stays zero.
    """
    z = np.maximum(z, 0)
    mass = z[unlabeled].sum(axis=0)
    return sum_to_one(z * np.where(mass > 0, unlabeled.sum() * pi / np.where(mass > 0, mass, 1), 0))


def balance(p: np.ndarray, pi: np.ndarray) -> np.ndarray:
    """Rows p [n_u, c] of unlabelled points times diag(b), rows to sum 1.

    From b = 1, up to 30 times: a_i = 1 / (p b)_i, b_j = (n_u pi_j / (p^T a)_j)^0.25, until log b
    moves by less than 0.001. A column of zeros keeps b = 1.
    """
    b = np.ones(p.shape[1])
    for _ in range(BALANCE_STEPS):
        mass = p.T @ (1 / (p @ b))
        new = np.where(mass > 0, len(p) * pi / np.where(mass > 0, mass, 1), 1) ** 0.25
        moved = np.abs(np.log(new / b)).max()
        b = new
        if moved < 0.001:
            break
    return sum_to_one(p * b)


def logistic_regression(
    f: np.ndarray, target: np.ndarray, weight: np.ndarray | None = None, strength: float = 10.0
) -> tuple[np.ndarray, np.ndarray]:
    """Weights V [c, d] and intercepts u [c] of multinomial logistic regression, classes balanced.

    Minimises |V|^2 / 2 - strength sum_ij g_ij log p_ij, p_i = softmax(V f_i + u), over rows f
    [m, d] with distributions `target` [m, c] and weights [m]; g_ij = weight_i target_ij total /
    (present N_j), N_j the sum of column j of weight_i target_ij, total their sum, present the
    number of classes with N_j > 0. A class that is absent is left out: V_j = 0, u_j = -inf. This is
    scikit-learn's LogisticRegression(C=strength, class_weight="balanced"), two classes included,
    which it fits by one vector: the same as a penalty of |V|^2.
    """
    g = target if weight is None else target * weight[:, None]
    mass = g.sum(axis=0)
    present = mass > 0
    g = g[:, present] * (mass.sum() / (present.sum() * mass[present]))
    d, c = f.shape[1], int(present.sum())
    penalty = 2.0 if c == 2 else 1.0

    def loss(theta: np.ndarray) -> tuple[float, np.ndarray]:
        v, u = theta[: c * d].reshape(c, d), theta[c * d :]
        logp = log_softmax(f @ v.T + u, axis=1)
        slope = strength * (np.exp(logp) * g.sum(axis=1, keepdims=True) - g)
        value = penalty * (v**2).sum() / 2 - strength * (g * logp).sum()
        return value, np.concatenate([(slope.T @ f + penalty * v).ravel(), slope.sum(axis=0)])

    found = minimize(
        loss,
        np.zeros(c * d + c),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 5000, "maxfun": 10000, "ftol": 1e-15, "gtol": 1e-8, "maxcor": 30},
    )
    weights, intercepts = np.zeros((len(mass), d)), np.full(len(mass), -np.inf)
    weights[present] = found.x[: c * d].reshape(c, d)
    intercepts[present] = found.x[c * d :]
    return weights, intercepts


def logistic_probabilities(
    f: np.ndarray, given: np.ndarray, weight: np.ndarray | None = None
) -> np.ndarray:
    """p [n, c] of every row of f, fitted on the labelled rows; 1e-12 for an absent class."""
    labeled = given.any(axis=1)
    v, u = logistic_regression(
        f[labeled], given[labeled], None if weight is None else weight[labeled]
    )
    return np.maximum(softmax(f @ v.T + u, axis=1), 1e-12)


def discriminant_scores(f: np.ndarray, r: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """L [n, c], steps 2 to 4, for soft labels r = R [n, c] and p = `prior` [n, c].

    N = R^T 1, M = diag(1/N) R^T F, S = (F^T diag(R 1) F - M^T diag(N) M) / sum N,
    Sigma = 0.5 S + 0.5 (trace S / d) I,
    L = 0.4 (F Sigma^-1 M^T - diag(M Sigma^-1 M^T) / 2) + log(p + 0.001); -inf where N = 0.
    """
    mass = r.sum(axis=0)
    present = mass > 0
    means = (r[:, present].T @ f) / mass[present][:, None]
    total = f.T @ (r.sum(axis=1)[:, None] * f)
    s = (total - means.T @ (mass[present][:, None] * means)) / mass.sum()
    d = f.shape[1]
    sigma = 0.5 * s + 0.5 * (np.trace(s) / d) * np.eye(d)
    directions = scipy.linalg.cho_solve(scipy.linalg.cho_factor(sigma), means.T)
    scores = np.full(r.shape, -np.inf)
    scores[:, present] = 0.4 * (f @ directions - (means.T * directions).sum(axis=0) / 2)
    return scores + np.log(prior + 0.001)


def discriminant(
    f: np.ndarray,
    wn: sp.csr_matrix,
    p: np.ndarray,
    given: np.ndarray,
    pi: np.ndarray,
    weight: np.ndarray | None = None,
) -> np.ndarray:
    """B: Q [n, c] from class-mass rows p [n, c]; the label is its argmax.

    weight [n]: of the labels; 1 by default.
    """
    labeled = given.any(axis=1)
    weight = np.ones(len(f)) if weight is None else weight

    def settled(q: np.ndarray) -> np.ndarray:
        q = q.copy()
        q[~labeled] = balance(q[~labeled], pi)
        q[labeled] = given[labeled]
        return q

    # rows that no label reaches: 1/c, c the classes that have any mass
    present = p.any(axis=0) | given.any(axis=0)
    q = settled(np.where(p.any(axis=1, keepdims=True), p, present / present.sum()))
    prior = logistic_probabilities(f, given, weight)
    for _ in range(STEPS):
        r = np.where(labeled[:, None], 5 * weight[:, None] * q, q)
        scores = discriminant_scores(f, r, prior)
        q = softmax(scores, axis=1)
        for _ in range(SMOOTHING_STEPS):
            q[labeled] = given[labeled]
            q = softmax(scores + 3 * (wn @ q), axis=1)
        q = settled(q)
    return q


def labels_by_default(
    x: np.ndarray, labels: np.ndarray, c: int, *, transform: bool = True, refine: bool = True
) -> np.ndarray:
    """Labels [n] of embeddings x [n, d] and labels [n] (-1 for none), uniform class sizes."""
    f = rescale(x) if transform else unit_rows(np.asarray(x, dtype=np.float64))
    wn, given, pi = graph(f), one_hot(labels, c), np.full(c, 1 / c)
    p = class_mass(spread(wn, given), labels < 0, pi)
    return (discriminant(f, wn, p, given, pi) if refine else p).argmax(axis=1)
