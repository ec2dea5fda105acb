"""The feature store: a cache of features, keyed by a hash of all that a feature depends on.

Two implementations share one interface (`interface.py`): a store on this machine, which is
described here, and one in a bucket that machines share (`shared.py`). `vectors.open_store` opens
the chosen one.

An entry is the feature of one view of one example from one backbone: a key of 16 bytes
(`runners/keys.py`) and a float32 vector. `ingest` and `extract` also cache their own notes as
entries (`sources/remembered.py`, `runners/written.py`). The store is a cache outside the project,
shared by the user's clones and by `dvc exp run --temp`: deleting it costs time, never correctness.

It is one SQLite file in WAL mode. LMDB reads two to three times as fast and writes up to three
times as fast (`docs/decisions.md`). But SQLite already reads 50,000 features in two seconds, which
a backbone on two cores takes minutes to compute. SQLite comes with Python, and its file grows and
shrinks with its content. A truncated or overwritten file raises an error that can be caught; LMDB
maps the file into memory, so the same damage kills the process.

Guarantees, and how they are kept:

- Crashes: a `put` is one transaction. After `kill -9`, either all or nothing of it is stored; after
  a power cut the last transactions may be lost (`synchronous = NORMAL`).
- Corruption: every vector has a CRC-32 over key and value; if it does not match, the entry counts
  as missing. If SQLite finds the file damaged, the file is set aside and a new one is created, even
  in the middle of a run.
- Layouts: the file's name has the layout's number, so a file of a different layout is never opened.
- Concurrency: queries never wait; a lock file serialises opening and writing. A reader also writes,
  namely which entries it used.
- A full disk: `put` raises a `StoreError` and changes nothing. Reading still works, and so does
  writing once there is space again. If the folder is read-only, the store can be read, and `put`
  raises a `StoreError`.
- Size: the limit applies to the file, which reuses the space of evicted entries and is shrunk if it
  is larger than the limit. Entries that the current run has used or found are never evicted, so a
  run that uses more than the limit exceeds it. The write-ahead log adds about 20 MB while the store
  is open.

WAL mode needs a local disk, not NFS.

Two other caches are in subfolders of the store: exported backbones, and checkpoints of fine-tuning.
They take little space, so the limit does not count them; `make clean-store` deletes them too.

Code outside this subpackage uses `vectors.py`. `database.py` has the SQLite file, `eviction.py` the
limit and `places.py` the folders. For the store in a bucket, `shards.py` has the format of an
object, `index.py` the in-memory index of all shards, and `committer.py` merges shards and evicts.
"""
