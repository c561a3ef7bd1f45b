"""Verifies the receipt of a consent: python3 verify_consent_receipt.py KEY JWKS RECEIPT

KEY is a file with the verifier key of token-service's audit log, and JWKS one with the issuer's JSON Web Key Set. Take both
from somebody whom you trust, and never from where the receipt comes from. RECEIPT is the file that the page of an integration
offers. Needs `cryptography` and `pyjwt`, and no network.

Writes the claims of the receipt to standard output, only if it is signed by the issuer, and the log has the event of just this
consent.
"""

import json
import sys

import jwt
from verify_audit_proof import require
from verify_audit_proof import verify as verify_proof

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


def ulid(data):
    require(len(data) == 16, "malformed id")
    number = int.from_bytes(data, "big")
    return "".join(ALPHABET[number >> 5 * index & 31] for index in reversed(range(26)))


def fields(message):
    """Returns the fields of a message of Protocol Buffers that are bytes or texts, by their number."""
    found, at = {}, 0

    def varint():
        nonlocal at
        number, shift = 0, 0
        while True:
            byte = message[at]
            at += 1
            number |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return number

    while at < len(message):
        key = varint()
        if key & 7 == 0:
            varint()
        else:
            require(key & 7 == 2, "malformed event")
            length = varint()
            found[key >> 3] = message[at : at + length]
            at += length
    return found


def verify(key, jwks, file):
    """Verifies a receipt. Returns its claims."""
    header = jwt.get_unverified_header(file["receipt"])
    require(header.get("typ") == "consent-receipt+jwt", "this is no receipt of a consent")
    keys = {entry["kid"]: jwt.PyJWK(entry) for entry in jwks["keys"]}
    signer = keys[header["kid"]]
    claims = jwt.decode(
        file["receipt"],
        signer,
        algorithms=[signer.algorithm_name],
        options={"verify_iat": False},
    )
    event, _, _ = verify_proof(key, file["proof"])
    event = fields(event)
    tenant, client = (party["party_id"] for party in claims["parties"])
    # The numbers are those of accord.audit.v1.AuditRecord.
    require(ulid(event[1]) == claims["audit_event_id"], "the proof is for another event")
    require(event[5].decode() == tenant, "the proof is for another tenant")
    require("cli_" + ulid(event[6]) == client, "the proof is for another client")
    require(event[10] == b"consent.approve", "the proof is for another action")
    require(event[11].decode() == claims["record_id"], "the proof is for another grant")
    return claims


def main():
    if len(sys.argv) != 4:
        sys.exit("usage: verify_consent_receipt.py KEY JWKS RECEIPT")
    try:
        texts = []
        for path in sys.argv[1:]:
            with open(path, encoding="utf-8") as file:
                texts.append(file.read())
        claims = verify(texts[0].strip(), json.loads(texts[1]), json.loads(texts[2]))
    except Exception as error:  # Whatever is wrong with the files, nothing is verified.
        sys.exit(f"not verified: {error!r}")
    json.dump(claims, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
