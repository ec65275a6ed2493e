"""One file a revision, `revision_NNNN.py`; `schema.REVISION` names the last."""
