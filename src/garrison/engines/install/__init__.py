"""Install an engine into an environment of its own: recipes, package sources, steps, explained failures.

How an engine is run is not known here.
"""
