"""What vLLM's API says, and how to ask it: model lists, loads and unloads, capabilities, the generation probe.

Knows one server and its answers. Nothing here knows stacks, plans or the store.
"""
