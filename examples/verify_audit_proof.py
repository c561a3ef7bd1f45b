"""Verifies that an audit record has an event: python3 verify_audit_proof.py KEY PROOF

KEY is a file with the log's verifier key, from somebody whom you trust; never take it from where the proof comes from.
PROOF is a proof file, as docs/AUDIT_PROOFS.md describes it. Nothing else is needed but `cryptography`, no network either.

Writes the event to standard output, as an encoded accord.audit.v1.AuditEvent.
"""

import json
import re
import sys
from base64 import b64decode, b64encode
from hashlib import sha256

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


def require(holds, what):
    if not holds:
        raise ValueError(what)


def decode(text):
    data = b64decode(text, validate=True)
    require(b64encode(data).decode() == text, "malformed base64")
    return data


def number(value):
    require(type(value) is int and 0 <= value < 2**53, "malformed number")
    return value


def head(key, note):
    """Verifies a signed head (c2sp.org/tlog-checkpoint). Returns the log's name, its size and its root."""
    name, key_hash, public = key.split("+", 2)
    public = decode(public)
    key_id = sha256(name.encode() + b"\n" + public).digest()[:4]
    require(public[0] == 1 and key_id.hex() == key_hash, "malformed key")
    text, _, signatures = note.rpartition("\n\n")
    for line in signatures.splitlines():
        dash, signer, signature = line.split(" ")
        signature = decode(signature)
        if (dash, signer, signature[:4]) == ("\u2014", name, key_id):
            Ed25519PublicKey.from_public_bytes(public[1:]).verify(signature[4:], (text + "\n").encode())
            origin, size, root = text.split("\n")[:3]
            require(origin == name and re.fullmatch("0|[1-9][0-9]*", size), "malformed head")
            return origin, int(size), decode(root)
    raise ValueError("not signed with this key")


def root(leaf, index, size, hashes):
    """Returns the root that an inclusion proof leads to (RFC 9162 section 2.1.3.2)."""
    require(index < size, "no such leaf")
    node, last, result = index, size - 1, sha256(b"\0" + leaf).digest()
    for sibling in map(decode, hashes):
        require(last > 0 and len(sibling) == 32, "malformed proof")
        if node & 1 or node == last:
            result = sha256(b"\1" + sibling + result).digest()
            while not node & 1 and node > 0:
                node, last = node >> 1, last >> 1
        else:
            result = sha256(b"\1" + result + sibling).digest()
        node, last = node >> 1, last >> 1
    require(last == 0, "malformed proof")
    return result


def verify(key, proof):
    """Verifies a proof. Returns the event, and the head of the log that has it."""
    require(proof.keys() - {"group"} == {"version", "event", "index", "hashes", "checkpoint"}, "malformed proof")
    require(proof["version"] == 1, "unknown version")
    event = decode(proof["event"])
    leaf = b"\0" + event
    if "group" in proof:
        group = proof["group"]
        count = number(group["count"])
        found = root(event, number(group["index"]), count, group["hashes"])
        require(found == decode(group["root"]), "the event is not in its group")
        leaf = b"\1" + count.to_bytes(8, "big") + found
    log, size, expected = head(key, proof["checkpoint"])
    found = root(leaf, number(proof["index"]), size, proof["hashes"])
    require(found == expected, "the log does not include the event")
    return event, log, size


def main():
    if len(sys.argv) != 3:
        sys.exit("usage: verify_audit_proof.py KEY PROOF")
    try:
        with open(sys.argv[1], encoding="utf-8") as key, open(sys.argv[2], encoding="utf-8") as proof:
            event, log, size = verify(key.read().strip(), json.load(proof))
    except Exception as error:  # Whatever is wrong with the files, nothing is proven.
        sys.exit(f"not proven: {error!r}")
    print(f"the event is in the log {log}, which has {size} leaves", file=sys.stderr)
    sys.stdout.buffer.write(event)


if __name__ == "__main__":
    main()
