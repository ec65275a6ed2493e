"""Installing an engine into an environment of its own: recipes, package sources, the steps, and explained failures.

Nothing here knows how an engine is run.
"""
