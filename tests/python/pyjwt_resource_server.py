"""A resource server on PyJWT that reads the keys when it is told to: it verifies access tokens by the authority's keys."""

import sys

import jwt
import requests
from settings import CLOUD_API_URL, TENANT_AUTHORITY_URL, say

# The test's clock runs ahead of this machine's.
LEEWAY = 24 * 3600

keys = None
for line in sys.stdin:
    token = line.strip()
    if token == "keys":
        found = requests.get(TENANT_AUTHORITY_URL + "/jwks.json", timeout=30).json()
        keys = {key["kid"]: jwt.PyJWK(key) for key in found["keys"]}
        say(keys=len(keys))
        continue
    try:
        header = jwt.get_unverified_header(token)
        if header.get("typ") != "at+jwt":
            raise jwt.InvalidTokenError("this is no access token")
        key = keys[header["kid"]]
        claims = jwt.decode(
            token,
            key,
            algorithms=[key.algorithm_name],
            audience=CLOUD_API_URL,
            issuer=TENANT_AUTHORITY_URL,
            leeway=LEEWAY,
        )
        say(accepted=True, **claims)
    except (jwt.PyJWTError, KeyError) as error:
        say(accepted=False, why=str(error))
