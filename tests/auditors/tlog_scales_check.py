"""Checks a log from outside with PyPI's tlog-scales, which knows nothing of Stagedoor.

    pip install tlog-scales==0.0.3
    python tlog_scales_check.py --log https://HOST/v1/audit/log --vkey FILE [--witness FILE] [KEPT…]
"""

import argparse
import os
import sys
from pathlib import Path

from tlog_scales import tiles
from tlog_scales.backend import HttpBackend, make_backend
from tlog_scales.reader import TilesReader
from tlog_scales.signing import Vkey
from tlog_scales.tlog import Checkpoint

parser = argparse.ArgumentParser()
parser.add_argument("--log", required=True, help="what `checkpoint` stands under: https://…, file://…")
parser.add_argument("--vkey", required=True, type=Path, help="file with the log's key")
parser.add_argument("--witness", type=Path, help="file with a witness's key: it must have cosigned")
parser.add_argument("kept", nargs="*", type=Path, help="checkpoints kept from earlier")
args = parser.parse_args()
secret = os.environ.get("STAGEDOOR_CLIENT_SECRET")


def check() -> str:
    backend = make_backend(args.log)
    if secret and isinstance(backend, HttpBackend):
        backend.session.headers["Authorization"] = f"Bearer {secret}"
    log = Vkey.from_string(args.vkey.read_text().strip())
    reader = TilesReader(backend)

    head = reader.get_checkpoint()
    head.verify(log)
    assert head.origin == log.name, "the checkpoint of another log"
    assert reader.calculate_root_hash() == head.root_hash, "the root is not that of the tiles"

    kept = [Checkpoint.from_text(path.read_text()) for path in args.kept]
    if args.witness:
        witnessed = Checkpoint.from_text(backend.get("witnessed").decode())
        witnessed.verify(Vkey.from_string(args.witness.read_text().strip()))
        kept.append(witnessed)
    for old in kept:
        old.verify(log)
        assert old.size <= head.size, f"ROLLBACK: a kept checkpoint has {old.size} entries, the log {head.size}"
        if old.size:
            reader.get_consistency_proof(old.size, head.size).check(old.root_hash, head.root_hash)

    if not secret and isinstance(backend, HttpBackend):
        return f"holds: {head.size} hashes, {len(kept)} kept checkpoints; no entry was looked at"
    for index in range(head.size):
        leaf = tiles.leaf_hash(reader.get_entry(index))
        reader.get_inclusion_proof(index, head.size).check(leaf, head.root_hash)
    return f"holds: {head.size} entries, {len(kept)} kept checkpoints"


try:
    print(check())
except Exception as error:
    sys.exit(f"does NOT hold: {type(error).__name__} {error}")
