"""Several processes that do one piece of work: who they are, what they tell each other."""
