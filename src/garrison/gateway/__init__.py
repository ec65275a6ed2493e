"""The data plane: OpenAI requests go to instances and targets by the name of their model.

It knows neither instances nor the fleet: an `Activator` finds a ready upstream for a name.
"""
