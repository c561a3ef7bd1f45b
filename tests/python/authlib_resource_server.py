"""A resource server on joserfc, the JOSE library of Authlib: it verifies access tokens by the authority's keys.

Authlib's own validator (RFC 9068) takes only the algorithms that joserfc recommends. With `authlib` as argument this
program uses that one.
"""

import sys

import requests
from authlib.oauth2 import OAuth2Error
from authlib.oauth2.rfc9068 import JWTBearerTokenValidator
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from settings import CLOUD_API_URL, TENANT_AUTHORITY_URL, say


class Validator(JWTBearerTokenValidator):
    def get_jwks(self):
        return requests.get(TENANT_AUTHORITY_URL + "/jwks.json", timeout=30).json()


validator = Validator(issuer=TENANT_AUTHORITY_URL, resource_server=CLOUD_API_URL)


def by_authlib(token):
    claims = validator.authenticate_token(token)
    validator.validate_token(claims, ["contacts.read"], None)
    return claims


keys = KeySet.import_key_set(validator.get_jwks())
expected = jwt.JWTClaimsRegistry(
    iss={"essential": True, "value": TENANT_AUTHORITY_URL},
    aud={"essential": True, "value": CLOUD_API_URL},
    exp={"essential": True},
)


def by_joserfc(token):
    decoded = jwt.decode(token, keys, algorithms=["EdDSA"])
    if decoded.header.get("typ") != "at+jwt":
        raise ValueError("this is no access token")
    expected.validate(decoded.claims)
    return decoded.claims


verify = by_authlib if "authlib" in sys.argv else by_joserfc
for line in sys.stdin:
    try:
        say(accepted=True, **verify(line.strip()))
    except (JoseError, OAuth2Error, ValueError) as error:
        say(accepted=False, why=str(error))
