"""Declared adapters, as the gateway needs to know them: where each is loaded, and how one that is not gets loaded.

places     pure: where an adapter is loaded, under which name, or why it is not
room       pure: which target is to load an adapter, and which adapter makes room for it
routes     pure: the routes of adapters
records    what the places follow from: the stacks, the record, what the fleet agent saw, which engines run
loads      the requests that wait for an adapter
traffic    requests are kept away from an adapter that is unloaded
"""
