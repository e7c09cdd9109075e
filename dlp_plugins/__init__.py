"""Deep label propagation as plug-ins.

    from dlp_plugins.propagate import propagate          labels over a graph, without any training
    from dlp_plugins.recipe import load_recipe           a checked recipe
    from dlp_plugins.training.run import run             train by it
    from dlp_plugins.registry import solvers             register a component of your own
    from dlp_plugins.sklearn import GraphLabelPropagation   the scikit-learn estimator
"""
