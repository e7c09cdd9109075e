"""Seeds: every place in a run has numbers of its own."""

from __future__ import annotations

import itertools

import torch

from dlp_plugins.training import seeds


def test_no_two_places_share_a_seed() -> None:
    numbers = (0, 1, 7, 2**31 - 1)
    places = [p for size in range(1, 5) for p in itertools.product(numbers, repeat=size)]
    assert len({seeds.derive(*place) for place in places}) == len(places)


def test_zeros_at_the_end_of_a_place_count() -> None:
    assert len({seeds.derive(7), seeds.derive(7, 0), seeds.derive(7, 0, 0)}) == 3
    assert seeds.derive(7, 1, 3) != seeds.derive(7, 1, 3, 0)


def test_a_place_alone_decides_what_is_drawn() -> None:
    seeds.seed_step(0, 1, 2, 3)
    first = torch.rand(3)
    seeds.seed_step(0, 1, 2, 4)
    second = torch.rand(3)
    seeds.seed_step(0, 1, 2, 3)
    assert torch.rand(3).equal(first)
    assert not second.equal(first)
    ours, theirs = (seeds.generator(0, 1, n) for n in (2, 3))
    assert not torch.rand(3, generator=ours).equal(torch.rand(3, generator=theirs))
