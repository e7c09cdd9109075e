"""Label propagation as scikit-learn classifiers.

>>> import numpy as np
>>> from dlp_plugins.sklearn import GraphLabelPropagation
>>> X = np.array([[1.0, 0.1], [1.0, 0.2], [0.1, 1.0], [0.2, 1.0]])
>>> model = GraphLabelPropagation(n_neighbors=1).fit(X, [0, -1, 1, -1])
>>> model.transduction_.tolist()
[0, 0, 1, 1]
>>> model.predict([[3.0, 0.5]]).tolist()
[0]
"""

from dlp_plugins.sklearn.classifier import Doubts, GraphLabelPropagation
from dlp_plugins.sklearn.multi_label import MultiLabelPropagation
from dlp_plugins.sklearn.prototypes import PrototypePropagation

__all__ = ["Doubts", "GraphLabelPropagation", "MultiLabelPropagation", "PrototypePropagation"]
