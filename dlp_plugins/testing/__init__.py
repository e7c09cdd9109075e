"""Contract checks for anyone's component: call one in a test; it raises AssertionError or returns.

>>> from dlp_plugins.testing import check_weighter
>>> check_weighter("entropy")

Each takes a component that is built, or a registered name with parameters to build it with; an
optimizer or a tracker, which a run builds with arguments of its own, comes as its class.
"""

from dlp_plugins.testing._augmentation import check_augmentation
from dlp_plugins.testing._graph import check_affinity, check_graph
from dlp_plugins.testing._normalizer import check_normalizer
from dlp_plugins.testing._optimizer import check_optimizer, check_schedule
from dlp_plugins.testing._pseudo_labels import check_balancer, check_weighter
from dlp_plugins.testing._refiner import check_refiner
from dlp_plugins.testing._selector import check_selector
from dlp_plugins.testing._solver import check_solver
from dlp_plugins.testing._source import check_source
from dlp_plugins.testing._tracker import check_tracker
from dlp_plugins.testing._training import check_backbone, check_consistency, check_dataset
from dlp_plugins.testing._transform import check_transform

__all__ = [
    "check_affinity",
    "check_augmentation",
    "check_backbone",
    "check_balancer",
    "check_consistency",
    "check_dataset",
    "check_graph",
    "check_normalizer",
    "check_optimizer",
    "check_refiner",
    "check_schedule",
    "check_selector",
    "check_solver",
    "check_source",
    "check_tracker",
    "check_transform",
    "check_weighter",
]
