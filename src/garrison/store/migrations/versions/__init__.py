"""One file per revision, `revision_NNNN.py`; `schema.REVISION` names the last."""
