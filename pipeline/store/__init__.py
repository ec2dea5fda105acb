"""The feature store: a feature that was computed once is found again by what it is made of.

There are two behind one interface (`interface.py`): the one on this machine, described here, and
one in a bucket that machines share (`shared.py`). `vectors.open_store` opens whichever is chosen.

An entry is one view of one example through one backbone: 16 bytes of key (`keys.py`) and one
float32 vector. The store is a cache outside the project, shared by the user's clones and by
`dvc exp run --temp`: deleting it costs time, never correctness.

It is one SQLite file in WAL mode. LMDB reads two to four times as fast and writes as fast or up
to three times (`benchmarks/stores.md`), but SQLite already gives 50,000 features in two
seconds, which a backbone on two cores takes minutes to compute; it comes with Python, its file
grows and shrinks with what is in it, and a truncated or overwritten file is an error that can be
caught: LMDB maps the file into memory, where the same damage kills the process.

What is promised, and by what:

- Killed at any moment: a `put` is one transaction. After `kill -9` all of it is there or none;
  after a power cut the last ones may be gone (`synchronous = NORMAL`).
- Damage: every vector has a CRC-32 over key and value, and one that fails counts as missing.
  A file that SQLite finds damaged is set aside and a new one begun, during a run too.
- Other layouts: the file's name holds the layout's number, so another is never opened.
- Several processes: reading waits for nobody; opening and writing take turns, by a lock file.
- A full disk: `put` raises a `StoreError` and changes nothing; reading goes on, and writing does
  once there is room. A folder that cannot be written is read, and `put` is a `StoreError`.
- The limit is on the file, which reuses the room of evicted entries and is cut when it is longer
  than the limit. What the current run has used or found is never evicted, so a run that uses
  more than the limit exceeds it. The write-ahead log comes on top, some 20 MB while the store is
  open.

WAL mode needs a disk of this machine: not NFS.

Two other caches lie in folders of the store's: exported backbones and the checkpoints of
finetuning. They are few, so the limit does not count them; `make clean-store`
deletes them too.

`vectors.py` is what others use; `database.py` is the file, `eviction.py` the limit, `places.py` the
folders. For the store in a bucket, `shards.py` is the form of an object, `index.py` what is kept in
memory of all of them, `committer.py` what joins and evicts.
"""
