"""Builders against all pairs in float64, affinities against formulas, graphs against dense."""

import warnings

import faiss
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dlp_plugins import doctor, registry
from dlp_plugins import graph as graph_module
from dlp_plugins._threads import parallel
from dlp_plugins.errors import GraphError
from dlp_plugins.graph import (
    Graph,
    Neighbors,
    _assemble_by_counting,
    _assemble_by_sort,
    _index_type,
    assemble,
)
from dlp_plugins.graphs import (
    _cells_cpu,
    _choice,
    _eight_bits,
    _exact_cpu,
    _faiss_gpu,
    _upper_bound,
)
from dlp_plugins.graphs._blockwise import search_blockwise
from dlp_plugins.graphs._compared import Whole
from dlp_plugins.graphs._top_k import Pairs, nearest
from dlp_plugins.graphs.contract import drop_self, recall

NAMES = [n for n in registry.graphs.names() if n != "file"]  # which searches nothing
EXACT = ["exact", "faiss_flat"]
# There are so few cells of their usual size here that a point would probe all of them.
FEW_PROBES = {"cells": {"size": 64, "probes": 16}}
# The least recall on 6,000 points of six overlapping classes near 16 dimensions, k = 20.
LEAST_RECALL = {"cells": 0.99, "faiss_ivf": 0.99, "faiss_hnsw": 0.995, "nn_descent": 0.98}


def slow_to_compile(names):
    """nn_descent compiles for most of a minute; `make test-slow` runs it."""
    marks = {"nn_descent": [pytest.mark.slow]}
    return [pytest.param(name, marks=marks.get(name, [])) for name in names]


def build(name, **parameters):
    if missing := registry.graphs.get(name).missing():
        pytest.skip(f"needs {', '.join(missing)}")
    return registry.graphs.build(name, **parameters)


def points(n, d=32, intrinsic=16, classes=6, seed=0):
    """Unit vectors of overlapping classes near a subspace of `intrinsic` dimensions."""
    random = np.random.default_rng(seed)
    means = random.standard_normal((classes, intrinsic))
    latent = means[random.integers(0, classes, n)] + 0.8 * random.standard_normal((n, intrinsic))
    v = latent @ random.standard_normal((intrinsic, d)) + 0.3 * random.standard_normal((n, d))
    return torch.nn.functional.normalize(torch.from_numpy(v).float(), dim=1)


def similarities_float64(v):
    s = v.double() @ v.double().T
    return s.fill_diagonal_(-torch.inf)


def check_valid(found, v, k):
    """Indices in range, no point its own neighbour, none twice, similarities true."""
    n = len(v)
    assert found.indices.shape == found.similarities.shape == (n, k)
    assert found.similarities.dtype == torch.float32
    assert found.indices.min() >= -1
    assert found.indices.max() < n
    assert not (found.indices == torch.arange(n)[:, None]).any()
    missing = found.indices < 0
    ordered = found.indices.sort(dim=1).values
    assert not ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any()
    true = torch.einsum("nd,nkd->nk", v.double(), v.double()[found.indices.clamp(min=0).long()])
    assert (true - found.similarities)[~missing].abs().max() < 1e-5
    assert (found.similarities[missing] == 0).all()


def check_exact(found, v, k):
    """The k largest similarities of each row, by value: ties may fall either way."""
    check_valid(found, v, k)
    assert (found.indices >= 0).all()
    true = similarities_float64(v).topk(k, dim=1).values
    ours = found.similarities.double().sort(dim=1, descending=True).values
    assert (true - ours).abs().max() < 1e-5


def test_the_registry_holds_every_builder():
    assert {*EXACT, *LEAST_RECALL} <= set(NAMES)


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("intrinsic", [16, 32])
@pytest.mark.parametrize(("n", "k"), [(300, 10), (5000, 50), (7000, 5)])
def test_exact_builders_against_all_pairs_in_float64(name, n, k, intrinsic):
    v = points(n, intrinsic=intrinsic)
    check_exact(build(name, k=k).neighbors(v), v, k)


def test_exact_agrees_with_faiss_flat_on_the_sets():
    v = points(8000, d=64)
    ours = build("exact", k=30).neighbors(v).indices.sort(dim=1).values
    faiss = build("faiss_flat", k=30).neighbors(v).indices.sort(dim=1).values
    assert (ours == faiss).all(dim=1).float().mean() > 0.999  # rounding may swap the last places


@pytest.mark.parametrize("hits", [1, 8])
def test_exact_whatever_the_thresholds(monkeypatch, hits):
    """A poor guess costs time (all points are compared again), never exactness."""
    monkeypatch.setattr(_exact_cpu, "SAMPLE_HITS", hits)
    monkeypatch.setattr(_exact_cpu, "MIN_SAMPLE_POINTS", 64)
    v = points(4000)
    check_exact(build("exact", k=20).neighbors(v), v, 20)
    monkeypatch.setattr(_exact_cpu, "_guess", lambda v, *_: np.full(len(v), 0.9, np.float32))
    check_exact(build("exact", k=20).neighbors(v), v, 20)


@pytest.mark.parametrize("bits", [8, 32])
def test_exact_compares_few_pairs_again(bits):
    """Few points have too few pairs above their threshold and must be compared with all others."""
    v = points(12_000).numpy()
    compared = rounded(v) if bits == 8 else Whole(v)
    for k, sample in ((50, 896), (50, 960), (5, 1504)):
        rank = _exact_cpu._rank(len(v), k, sample)
        threshold = _exact_cpu._guess(compared.estimating(), rank, sample)
        order = np.argsort(threshold)
        ordered = compared.rows(order)
        count = _exact_cpu._nearest_above(v, ordered, order, threshold[order], k).counts
        assert (count < k).mean() < 0.02
        assert count.mean() < max(250, 5 * k)


@pytest.fixture
def without_eight_bits(monkeypatch):
    """As on a processor that does not multiply 8-bit integers quickly."""
    monkeypatch.setattr(_eight_bits, "available", lambda: False)


def rounded(v):
    if not _eight_bits.available():
        pytest.skip("needs a processor with VNNI instructions")
    return _eight_bits.rounded(v)


def shortened(v, head):
    return _upper_bound.shorten(v, _upper_bound.principal_axes(v), head)


def hard_points(n, d, intrinsic):
    """With zero vectors, duplicates and outliers."""
    v = points(n, d=d, intrinsic=intrinsic)
    v[:30], v[100:150] = 0, v[99]
    v[200:210] = torch.nn.functional.normalize(torch.randn(10, d, generator=torch.manual_seed(0)))
    return v


@pytest.mark.parametrize("kind", ["short", "rounded"])
@pytest.mark.parametrize(("d", "intrinsic"), [(32, 16), (300, 10), (1280, 40)])
def test_products_bound_every_similarity(d, intrinsic, kind):
    v = hard_points(3000, d, intrinsic).numpy()
    compared = shortened(v, d // 4) if kind == "short" else rounded(v)
    rows = slice(0, 300)
    true = v[rows].astype(np.float64) @ v.T.astype(np.float64)
    queries = compared.rows(rows)
    products = queries.products(compared)
    assert products.dtype == compared.dtype
    for share in (0.2, 0.5, 0.9):  # each point's bound is some other's similarity
        bound = np.quantile(true, share, axis=1).astype(np.float32)
        may = products >= queries.limits(bound)[:, None]
        assert may[true >= bound[:, None]].all()
    if kind == "rounded":
        estimate = queries.estimating()
        found = estimate.similarities(estimate.products(compared.estimating()))
        assert np.abs(found - true).max() < 0.02


def test_eight_bits_are_not_for_points_of_which_many_are_far_longer():
    v = points(3000, d=128)
    v[:2700] = torch.nn.functional.normalize(v[0] + 0.01 * v[:2700], dim=1)
    assert rounded(v.numpy()) is None


@pytest.mark.parametrize("spread", [1, 0.05])
def test_eight_bits_leave_few_pairs_whatever_the_mean(spread):
    """Points in a narrow cone: only what they differ by is rounded."""
    v = points(3000, d=128).numpy()
    v = torch.nn.functional.normalize(torch.from_numpy(v * spread + 1 / 128**0.5), dim=1).numpy()
    true = v[:200].astype(np.float64) @ v.T.astype(np.float64)
    bound = np.partition(true, -50, axis=1)[:, -50].astype(np.float32)
    compared = rounded(v)
    queries = compared.rows(slice(200))
    may = queries.products(compared) >= queries.limits(bound)[:, None]
    assert may[true >= bound[:, None]].all()
    assert may.sum() < 2 * 50 * 200


def test_no_eight_bits_for_points_that_hardly_differ():
    v = points(3000, d=128).numpy()
    v = torch.nn.functional.normalize(torch.from_numpy(1e-4 * v + 1 / 128**0.5), dim=1).numpy()
    assert rounded(v) is None
    assert rounded(np.repeat(v[:1], 100, axis=0)) is None
    assert rounded(np.zeros_like(v)) is None


def test_whole_vectors_where_nothing_would_rule_out_enough(without_eight_bits):
    random = torch.Generator().manual_seed(0)
    v = torch.nn.functional.normalize(torch.randn(9000, 32, generator=random), dim=1)
    assert isinstance(_choice.choose(v.numpy(), 10, 4e7), Whole)
    check_exact(build("exact", k=10).neighbors(v), v, 10)
    near_few = points(9000).numpy()
    assert isinstance(_choice.choose(near_few, 10, 4e7), _upper_bound.ShortVectors)
    assert isinstance(_choice.choose(near_few, 6000, 4e7), Whole)  # most of the points are wanted


def near_pairs(v):
    """Of the first 300 points with all: each one's 20 nearest, itself among them."""
    s = v[:300] @ v.T
    cols = np.argpartition(s, -20, axis=1)[:, -20:].reshape(-1)
    rows = np.repeat(np.arange(300), 20)
    return Pairs(rows, cols, s[rows, cols])


@pytest.mark.parametrize("noise", [0.3, 0.1])
def test_share_that_near_pairs_stay_below(noise):
    """Tails are noise here, alike for no pair but a point's with itself, and a few by chance."""
    v = points(9000, d=128, intrinsic=6).numpy()
    v += noise * v[::-1]
    v /= np.linalg.norm(v, axis=1, keepdims=True)
    compared, pairs = shortened(v, 16), near_pairs(v)
    queries = compared.rows(slice(300))
    share = _upper_bound.lacking_share(queries, compared, pairs)
    assert 0 < share < 0.9
    queries, others = queries.narrowed(compared, share)
    may = queries.rows(pairs.rows).products(others.rows(np.unique(pairs.cols)))
    at = np.searchsorted(np.unique(pairs.cols), pairs.cols)
    reached = may[np.arange(len(at)), at] >= queries.rows(pairs.rows).limits(pairs.similarities)
    missed = ~reached & (pairs.rows != pairs.cols)
    assert missed.mean() < 2 * _upper_bound.MISS_RATE


def test_tails_count_in_full_where_no_pair_is_informative():
    v = points(9000, d=128, intrinsic=6).numpy()
    v[:300] = v[0]  # each one's nearest are its duplicates
    short = shortened(v, 16)
    assert _upper_bound.lacking_share(short.rows(slice(300)), short, near_pairs(v)) == 1


def test_among_duplicates_each_point_keeps_its_largest():
    s = np.random.default_rng(0).random((30, 400), dtype=np.float32)
    rows = np.arange(100, 130)
    crowd = _cells_cpu._reaching(s, np.zeros(30, np.float32), rows, 7, 2)
    most = 2 * _cells_cpu.MAX_CANDIDATES_PER_K
    assert (np.bincount(crowd.rows)[100:] == most).all()
    np.testing.assert_array_equal(crowd.similarities, s[crowd.rows - 100, crowd.cols - 7])
    np.testing.assert_array_equal(
        np.sort(crowd.similarities.reshape(30, most), axis=1), np.sort(s, axis=1)[:, -most:]
    )
    few = _cells_cpu._reaching(s, np.full(30, 0.99, np.float32), rows, 7, 2)
    assert len(few.rows) == (s >= 0.99).sum()
    assert (few.similarities >= 0.99).all()


@pytest.mark.parametrize("kind", [Whole, _upper_bound.ShortVectors, _eight_bits.Rounded])
@pytest.mark.parametrize(("k", "d"), [(3, 128), (20, 128), (20, 700)])
def test_exact_whatever_is_compared(k, d, kind, monkeypatch):
    """Zero vectors, duplicates and outliers, in a set where few numbers rule out most pairs."""
    v = hard_points(9000 if d < 200 else 5000, d, 6)
    make = {
        Whole: Whole,
        _upper_bound.ShortVectors: lambda v: shortened(v, d // 8),
        _eight_bits.Rounded: rounded,
    }
    monkeypatch.setattr(_exact_cpu, "choose", lambda v, *_: make[kind](v))
    compared = []
    confirm = _exact_cpu.confirm

    def counted(a, b, at, bound):
        compared.append(len(at))
        return confirm(a, b, at, bound)

    monkeypatch.setattr(_exact_cpu, "confirm", counted)
    check_exact(build("exact", k=k).neighbors(v), v, k)
    if kind is not Whole:
        assert 0 < sum(compared) < 0.1 * len(v) ** 2


@pytest.mark.parametrize("d", [512, 768, 1280])
def test_wide_descriptors_are_compared_in_eight_bits(d):
    v = points(4200, d=d, intrinsic=60)
    if not _eight_bits.available():
        pytest.skip("needs a processor with VNNI instructions")
    assert isinstance(_choice.choose(v.numpy(), 20, 9e6), _eight_bits.Rounded)
    check_exact(build("exact", k=20).neighbors(v), v, 20)
    found = build("cells", k=20, size=64, probes=16).neighbors(v)
    check_valid(found, v, 20)
    assert recall(found, build("exact", k=20).neighbors(v)) > 0.97


def test_confirmed_entries_are_those_of_the_product():
    random = np.random.default_rng(0)
    a, b = (random.standard_normal((m, 7)).astype(np.float32) for m in (40, 30))
    whole = a @ b.T
    at = np.flatnonzero(random.random(1200) < 0.1)
    bound = random.standard_normal(40).astype(np.float32)
    kept, similarities = _upper_bound.confirm(a, b, at, bound)
    wanted = at[whole.reshape(-1)[at] >= bound[at // 30]]
    assert kept.tolist() == wanted.tolist()
    np.testing.assert_allclose(similarities, whole.reshape(-1)[wanted], rtol=1e-5, atol=1e-6)
    assert len(_upper_bound.confirm(a, b, at[:0], bound)[0]) == 0


@given(
    st.lists(
        st.tuples(st.integers(0, 4), st.integers(0, 9), st.floats(-1, 1, width=32)), max_size=60
    )
)
def test_nearest_of_candidates(found):
    """Negative similarities, ties, points without candidates: as sorting each point's list."""
    unique = {(i, j): s for i, j, s in found}
    pairs = [Pairs(np.array([i], np.int32), np.array([j], np.int32), np.array([s], np.float32))
             for (i, j), s in unique.items()]  # fmt: skip
    empty = Pairs(*(np.empty(0, t) for t in (np.int32, np.int32, np.float32)))
    best = nearest([empty, *pairs], 10, 3)
    for i in range(10):
        mine = sorted(s for (row, _), s in unique.items() if row == i)[::-1]
        assert best.counts[i] == len(mine)
        assert sorted(best.similarities[i][best.indices[i] >= 0])[::-1] == mine[:3]
        there = best.indices[i] >= 0
        listed = zip(best.indices[i][there], best.similarities[i][there], strict=True)
        assert all(unique[i, j] == s for j, s in listed)
    assert (np.isneginf(best.similarities) == (best.indices < 0)).all()


def test_workers_run_on_one_thread_each_and_leave_torch_as_it_was():
    before = torch.get_num_threads()
    assert set(parallel(lambda _: torch.get_num_threads(), range(4))) == {1}
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("k", [5, 20, 150])
def test_cells_keep_few_candidates(k, monkeypatch):
    """Every point has k within its bound after the first round: none keeps all of the second."""
    rounds = []

    def counted(found, n, width, share):
        best = nearest(found, n, width, share)
        if width == k + 1:  # else they are each point's cells
            rounds.append(best.counts)
        return best

    monkeypatch.setattr(_cells_cpu, "nearest", counted)
    monkeypatch.setattr(_cells_cpu, "MIN_GROUPS", 1)
    v = points(9000, d=64, intrinsic=6)
    check_valid(build("cells", k=k, size=64).neighbors(v), v, k)
    first, second = rounds
    assert (first > k).all()
    assert first.mean() < 4 * k
    assert second.mean() < 6 * k


@pytest.mark.parametrize(
    ("name", "knobs", "most"), [("cells", {"size": 64}, 600), ("exact", {}, 1000)]
)
def test_an_order_that_keeps_neighbours_close(name, knobs, most, monkeypatch):
    monkeypatch.setattr(_exact_cpu, "MIN_ORDERED_POINTS", 6000)
    v = points(6000)
    found = build(name, k=10, **knobs).neighbors(v)
    assert sorted(found.order.tolist()) == list(range(6000))
    place = torch.empty_like(found.order)
    place[found.order] = torch.arange(6000)
    apart = (place[found.indices.long()] - place[:, None]).abs().float()
    assert apart.median() < most  # 2,000 in a random order
    graph = assemble(found.indices, found.similarities.clamp(min=0), order=found.order)
    local, order = graph.renumbered
    assert torch.equal(order, found.order)
    assert abs(local.to_scipy() - graph.to_scipy()[order.numpy()][:, order.numpy()]).max() == 0


def test_blockwise_is_the_same_for_any_block():
    v = points(700)
    for entries in (15**2, 701 * 64, 2**28):  # tiles narrower than k, uneven, a single one
        check_exact(search_blockwise(v, 20, entries), v, 20)


def test_blockwise_never_holds_all_pairs(monkeypatch):
    largest = 0
    product = torch.Tensor.__matmul__

    def watched(a, b):
        nonlocal largest
        out = product(a, b)
        largest = max(largest, out.numel())
        return out

    monkeypatch.setattr(torch.Tensor, "__matmul__", watched)
    search_blockwise(points(900), 5, entries=900 * 50)
    assert 0 < largest <= 900 * 50


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", NAMES)
def test_builders_on_a_gpu(name):
    v = points(3000)
    found = build(name, k=10).neighbors(v.cuda())
    assert found.indices.is_cuda
    on_cpu = Neighbors(found.indices.cpu(), found.similarities.cpu())
    exact = build("exact", k=10).neighbors(v)
    assert recall(on_cpu, exact) >= LEAST_RECALL.get(name, 0.9999)


@pytest.mark.parametrize("name", slow_to_compile(sorted(LEAST_RECALL)))
def test_recall_and_repetition_of_approximate_builders(name):
    v = points(6000)
    exact = build("exact", k=20).neighbors(v)
    chosen = FEW_PROBES.get(name, {})
    found = build(name, k=20, seed=3, **chosen).neighbors(v)
    check_valid(found, v, 20)
    assert LEAST_RECALL[name] <= recall(found, exact) < 1
    again = build(name, k=20, seed=3, **chosen).neighbors(v)
    assert torch.equal(found.indices, again.indices)
    assert torch.equal(found.similarities, again.similarities)


def test_recall_counts_misses_and_forgives_ties():
    exact = Neighbors(torch.tensor([[1, 2]]), torch.tensor([[0.9, 0.8]]))
    assert recall(exact, exact) == 1
    assert recall(Neighbors(torch.tensor([[1, 5]]), torch.tensor([[0.9, 0.7]])), exact) == 0.5
    assert recall(Neighbors(torch.tensor([[1, 5]]), torch.tensor([[0.9, 0.8]])), exact) == 1
    assert recall(Neighbors(torch.tensor([[1, -1]]), torch.tensor([[0.9, 0.95]])), exact) == 0.5


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("n", "k"), [(1, 50), (2, 50), (30, 50)])
def test_few_points(name, n, k):
    v = points(n)
    found = build(name, k=k).neighbors(v)
    assert found.indices.shape == (n, n - 1)
    if n > 1:
        check_exact(found, v, n - 1)


@pytest.mark.parametrize("name", slow_to_compile(NAMES))
def test_duplicates_by_the_thousand_and_zero_vectors(name):
    v = points(6000)
    v[:2500] = v[0]
    v[3000:3600] = 0
    v = v[torch.randperm(6000, generator=torch.Generator().manual_seed(0))]
    found = build(name, k=15).neighbors(v)
    if name in EXACT:
        check_exact(found, v, 15)
    else:
        check_valid(found, v, 15)


@pytest.mark.parametrize("name", EXACT)
def test_all_points_the_same(name):
    v = points(1).expand(4000, -1)
    check_exact(build(name, k=10).neighbors(v), v, 10)


def test_drop_self_by_identity():
    """Point 1 has its duplicate first; point 2 is not in its own list at all."""
    indices = torch.tensor([[0, 1, 2], [0, 1, 2], [0, 1, 3], [3, 2, 1]])
    similarities = torch.arange(12.0).reshape(4, 3)
    found = drop_self(indices, similarities)
    assert found.indices.tolist() == [[1, 2], [0, 2], [0, 1], [2, 1]]
    assert found.similarities.tolist() == [[1, 2], [3, 5], [6, 7], [10, 11]]


ABORTS = "import os; os.write(2, b'CUDA error: no kernel image'); os.abort()"


def test_a_faiss_that_aborts_or_hangs_on_this_gpu_is_noticed():
    assert "no kernel image" in _faiss_gpu.why_not(ABORTS)
    assert _faiss_gpu.why_not("import time; time.sleep(60)", 0.2) == "no answer within 0.2 s"
    assert _faiss_gpu.why_not("pass") is None


def test_doctor_makes_the_first_search_on_a_gpu_in_another_process(monkeypatch):
    """A build without kernels for the card aborts the process that searches."""

    def abort(*_):
        raise AssertionError("a search in this process")

    search = _faiss_gpu.why_not
    monkeypatch.setattr(faiss, "StandardGpuResources", abort, raising=False)
    monkeypatch.setattr(faiss, "GpuIndexFlatIP", abort, raising=False)
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1, raising=False)
    monkeypatch.setattr(_faiss_gpu, "why_not", lambda: search(ABORTS))
    assert doctor.faiss_gpu_problem() == "a first search fails: CUDA error: no kernel image"


def test_faiss_flat_warns_why_torch_searches_instead(monkeypatch):
    v = points(500)
    monkeypatch.setattr(_faiss_gpu, "why_not", lambda: "no kernel image")

    class OnGPU:
        """A CPU tensor with the device of a GPU."""

        device = torch.device("cuda")
        shape = v.shape
        __len__ = v.__len__

    monkeypatch.setattr(
        "dlp_plugins.graphs.faiss_flat.search_blockwise", lambda _, k: search_blockwise(v, k)
    )
    with pytest.warns(UserWarning, match=r"FAISS cannot search on this GPU \(no kernel image\)"):
        found = build("faiss_flat", k=5).neighbors(OnGPU())
    check_exact(found, v, 5)


def test_builders_are_silent():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        build("exact", k=5).neighbors(points(9000))
        build("cells", k=5).neighbors(points(4000))


# -- affinities ------------------------------------------------------------------------------------


def test_inner_product_is_clamped_and_raised():
    found = Neighbors(torch.tensor([[1, 2, -1]]), torch.tensor([[0.5, -0.5, 0.0]]))
    weights = registry.affinities.build("inner_product", gamma=3.0).weights(found)
    assert weights.tolist() == [[0.125, 0.0, 0.0]]


def test_binary_is_one_for_every_neighbour_that_is_not_at_a_right_angle():
    found = Neighbors(torch.tensor([[1, 2, 3, -1]]), torch.tensor([[0.5, 0.25, -0.5, 0.9]]))
    assert registry.affinities.build("binary").weights(found).tolist() == [[1, 1, 0, 0]]


def test_local_scale_against_its_formula():
    v = points(200)
    found = build("exact", k=10).neighbors(v)
    weights = registry.affinities.build("local_scale", m=3).weights(found)
    distance = torch.cdist(v.double(), v.double())
    scale = distance.sort(dim=1).values[:, 3]  # column 0 is the point itself
    for i in (0, 17, 199):
        for j, s, w in zip(found.indices[i], found.similarities[i], weights[i], strict=True):
            expected = torch.exp(-(distance[i, j] ** 2) / (scale[i] * scale[j]))
            assert w == pytest.approx(float(expected) if s > 0 else 0.0, abs=1e-4)


def test_local_scale_of_duplicates_missing_neighbours_and_few():
    found = Neighbors(
        torch.tensor([[1, 2, -1], [0, 2, -1], [0, -1, -1]]),
        torch.tensor([[1.0, 0.5, 0.0], [1.0, 0.5, 0.0], [0.5, 0.0, 0.0]]),
    )
    weights = registry.affinities.build("local_scale", m=7).weights(found)
    assert torch.isfinite(weights).all()
    assert weights[0, 0] == weights[1, 0] == 1  # duplicates
    assert weights[0, 1] == pytest.approx(np.exp(-1.0))  # scales 1 and 1, distance 1
    assert (weights[found.indices < 0] == 0).all()


@pytest.mark.parametrize("name", registry.affinities.names())
def test_every_affinity(name):
    v = points(2000)
    v[:3] = 0
    found = build("exact", k=10).neighbors(v)
    weights = registry.affinities.build(name).weights(found)
    assert weights.shape == (2000, 10)
    assert weights.dtype == torch.float32
    assert torch.isfinite(weights).all()
    assert (weights >= 0).all()
    assert (weights[3:].sum(dim=1) > 0).all()
    assert (weights[:3] == 0).all()  # a zero vector is a node without edges


# -- the graph -------------------------------------------------------------------------------------


def dense_graph(indices, affinities, mutual):
    """W = A + A^T and Wn in float64, straight from the definition."""
    n = len(indices)
    a = np.zeros((n, n))
    for i, (row, weights) in enumerate(zip(indices.tolist(), affinities.tolist(), strict=True)):
        for j, weight in zip(row, weights, strict=True):
            if j >= 0 and j != i:
                a[i, j] = weight
    w = a + a.T
    if mutual:
        w[(a == 0) | (a.T == 0)] = 0
    degree = w.sum(axis=1)
    scale = np.where(degree > 0, 1 / np.sqrt(np.where(degree > 0, degree, 1)), 0)
    return w * scale[:, None] * scale, degree


@pytest.mark.parametrize("make", [assemble, _assemble_by_counting, _assemble_by_sort])
@pytest.mark.parametrize("mutual", [False, True])
@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 25), k=st.integers(0, 8), seed=st.integers(0, 2**20))
def test_assemble_against_dense(make, mutual, n, k, seed):
    random = np.random.default_rng(seed)
    k = min(k, n)
    indices = np.stack([random.permutation(n)[:k] for _ in range(n)]).reshape(n, k)
    indices[random.random((n, k)) < 0.2] = -1
    weights = random.random((n, k)).astype(np.float32)
    weights[random.random((n, k)) < 0.2] = 0
    graph = make(torch.from_numpy(indices.astype(np.int32)), torch.from_numpy(weights), mutual)
    wn, degree = dense_graph(indices, weights, mutual)
    assert graph.crow_indices.dtype == graph.col_indices.dtype == torch.int32
    assert graph.values.dtype == graph.degree.dtype == torch.float32
    matrix = graph.to_scipy()
    assert matrix.has_canonical_format
    np.testing.assert_allclose(matrix.toarray(), wn, atol=1e-6)
    np.testing.assert_allclose(graph.degree.numpy(), degree, rtol=1e-5)
    assert graph.num_entries == (wn > 0).sum()  # no stored zeros


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 60), edges=st.integers(0, 60), seed=st.integers(0, 2**20))
def test_components_of_few_entries_are_those_that_scipy_finds(n, edges, seed):
    random = np.random.default_rng(seed)
    w = np.zeros((n, n))
    for i, j in random.integers(n, size=(edges, 2)):
        w[i, j] = w[j, i] = i != j
    found = Graph.from_affinity(sp.csr_matrix(w)).components.numpy()
    _, expected = sp.csgraph.connected_components(w, directed=False)
    pairs = set(zip(found.tolist(), expected.tolist(), strict=True))
    assert len(pairs) == len(set(found.tolist())) == len(set(expected.tolist()))
    assert found.max() + 1 == len(pairs)


def test_components_of_a_long_chain_in_any_order():
    for order in (np.arange(5000), np.random.default_rng(0).permutation(5000)):
        chain = sp.coo_matrix((np.ones(4999), (order[:-1], order[1:])), shape=(5000, 5000))
        assert not Graph.from_affinity((chain + chain.T).tocsr()).components.any()


def test_a_tiny_affinity_stays_finite():
    indices = torch.tensor([[1], [0]], dtype=torch.int32)
    for make in (_assemble_by_counting, _assemble_by_sort):
        graph = make(indices, torch.full((2, 1), 1e-30), False)
        assert torch.isfinite(graph.values).all()
        np.testing.assert_allclose(graph.to_scipy().toarray(), [[0, 1], [1, 0]], rtol=1e-5)


def test_degrees_are_summed_in_float64():
    """A hub with 200,000 edges: float32 sums, one after another, are off in the fourth digit."""
    n = 200_001
    indices = torch.zeros(n, 1, dtype=torch.int32)
    indices[0] = 1
    weights = torch.full((n, 1), 0.1)
    by_sort, usual = (
        make(indices, weights, False) for make in (_assemble_by_sort, _assemble_by_counting)
    )
    assert float(by_sort.degree[0]) == np.float32(n * float(weights[0]))
    assert torch.equal(by_sort.degree, usual.degree)


@pytest.mark.parametrize("entries", [1, 2, 2**31 - 1, 2**31, 2**40])
def test_indices_hold_the_number_of_entries(entries):
    assert torch.iinfo(_index_type(entries)).max >= entries
    assert (_index_type(entries) == torch.int32) == (entries < 2**31)


def test_int64_indices_give_the_same_graph(monkeypatch):
    """As from 2^31 entries, where int32 would overflow."""
    random = np.random.default_rng(0)
    a = sp.random(40, 40, 0.2, random_state=random)
    small = Graph.from_affinity(a + a.T)
    monkeypatch.setattr(graph_module, "MAX_INT32", small.num_entries - 1)
    large = Graph.from_affinity(a + a.T)
    assert small.crow_indices.dtype == small.col_indices.dtype == torch.int32
    assert large.crow_indices.dtype == large.col_indices.dtype == torch.int64
    x = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(large.matmul(x), small.matmul(x))
    assert torch.equal(large.components, small.components)


def test_from_affinity_agrees_with_assemble_and_refuses_what_is_no_affinity():
    random = np.random.default_rng(0)
    a = sp.random(40, 40, 0.2, random_state=random, dtype=np.float64)
    w = (a + a.T).tolil()
    w.setdiag(5)
    graph = Graph.from_affinity(w.tocsr())
    dense = w.toarray()
    np.fill_diagonal(dense, 0)
    degree = dense.sum(axis=1)
    np.testing.assert_allclose(
        graph.to_scipy().toarray(), dense / np.sqrt(np.outer(degree, degree)), rtol=1e-5, atol=1e-7
    )
    for bad, match in [
        (sp.csr_matrix(np.ones((2, 3))), "square"),
        (sp.csr_matrix([[0.0, np.nan], [np.nan, 0.0]]), "NaN"),
        (sp.csr_matrix([[0.0, -1.0], [-1.0, 0.0]]), "negative"),
        (sp.csr_matrix([[0.0, 1.0], [2.0, 0.0]]), "symmetric"),
    ]:
        with pytest.raises(GraphError, match=match):
            Graph.from_affinity(bad)
