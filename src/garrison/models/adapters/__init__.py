"""LoRA adapters: what one contains, whether it fits a base model, and the library of imported ones.

Only files are read here. Which server an adapter is loaded on is not known.
"""
