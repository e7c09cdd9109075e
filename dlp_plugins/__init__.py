"""Deep label propagation as plug-ins. Where to begin:

dlp_plugins.propagation.propagate          labels over a graph, without any training
dlp_plugins.recipe.load_recipe           a checked recipe
dlp_plugins.training.run.run             train by it
dlp_plugins.registry                     register a component of your own
dlp_plugins.sklearn                      the scikit-learn estimator
"""
