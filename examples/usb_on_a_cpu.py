"""Label propagation inside USB, on a CPU, in half a minute: docs/usb.md.

    python examples/usb_on_a_cpu.py

Trains `dlp` on scikit-learn's handwritten digits with 5 labels per class. USB's own `train.py`
refuses to start without CUDA, so the data, the views and the loop are put together here.
"""

import numpy as np
from semilearn import BasicDataset, get_algorithm, get_config, get_net_builder
from sklearn.datasets import load_digits
from torchvision import transforms

import dlp_plugins.hosts.usb  # noqa: F401 - registers dlp, dlp_meanteacher, ...

digits = load_digits()
images = np.repeat(np.uint8(digits.images / 16 * 255)[..., None], 3, axis=3)  # [n, 8, 8, 3]
train, test = np.arange(1200), np.arange(1200, 1797)
labelled = np.concatenate([train[digits.target[train] == c][:5] for c in range(10)])

config = get_config(
    {
        "algorithm": "dlp", "net": "wrn_28_2", "num_classes": 10, "distributed": False,
        "epoch": 4, "num_train_iter": 120, "num_eval_iter": 30, "batch_size": 32, "uratio": 1,
        "ema_m": 0.0, "lr": 0.05, "eval_batch_size": 200, "num_workers": 0,
        "save_dir": "runs", "save_name": "dlp",
        "dataset": "digits", "dlp_graph": {"name": "exact", "k": 10},
    }
)  # fmt: skip


def build_network(**settings):
    network = get_net_builder(config.net, from_name=False)(**settings)
    for module in network.modules():
        if hasattr(module, "running_mean"):
            module.momentum = 0.1  # USB's 0.001 is meant for a hundred thousand steps
    return network


plain = [transforms.ToTensor(), transforms.Normalize([0.5] * 3, [0.5] * 3)]
weak = transforms.Compose([transforms.RandomCrop(8, padding=1), *plain])


def dataset(index, transform, is_ulb=False):
    # "pseudolabel": one view of an unlabelled image, as dlp needs it
    views = "pseudolabel"
    return BasicDataset(views, images[index], digits.target[index], 10, transform, is_ulb, weak)


algorithm = get_algorithm(config, build_network, tb_log=None, logger=None)
algorithm.dataset_dict = {
    "train_lb": dataset(labelled, weak),
    "train_ulb": dataset(train, weak, is_ulb=True),
    "eval": dataset(test, transforms.Compose(plain)),
    "test": None,
}
algorithm.loader_dict = algorithm.set_data_loader()
algorithm.train()
print(algorithm.results_dict)
