"""What a manifest declares, for those who run instances: specs, and the plan for them.

`fleet` declares instances and does not know how they are run; `instances` runs them and does not know manifests.
"""
