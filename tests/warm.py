"""Imported by the server that children are forked from: what a command imports on its way."""

import sklearn.datasets
import torch

from dlp_plugins.recipe.build import build_propagator
from dlp_plugins.recipe.check import load_recipe
from dlp_plugins.registry import backbones

torch.set_num_threads(1)
build_propagator(load_recipe("digits"))
# torch imports its compiler with the first optimizer, which takes seconds
torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0).step()
backbones.find("imagenet-lite")
sklearn.datasets.load_digits()
