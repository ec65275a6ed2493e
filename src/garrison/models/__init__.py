"""Models and adapters on this machine: find, fetch, check, import, remove.

resolve                        from a name to a path: the sources in order, one lock per model, a checked download
library, ingest, swap          `garrison models`: what is here; bringing files in; renaming directories into place
validate, integrity, verify    is it whole: by names and sizes, by headers, by digests
names, layout, record          what a model is called, where it is kept, what is on record about it
request, info, envfile         what to resolve; a description; the file between resolve and serve
download_log                   which log a line of a download belongs to
sources/  adapters/            where models come from | LoRA adapters
files/  formats/               bytes: copying, hashing, unpacking, progress, stopping | headers of files

Everything here blocks: call it from a thread, and end it early with a `files.stop_token.StopToken`. Engines, ports,
GPUs and running servers are not known here.
"""
