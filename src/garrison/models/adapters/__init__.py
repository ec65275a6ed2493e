"""LoRA adapters: what one contains, whether it fits a base model, and the library of imported ones."""
