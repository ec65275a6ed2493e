"""The places where a model is looked for."""
