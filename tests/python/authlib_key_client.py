"""A partner's integration on Authlib that authenticates by a key (RFC 7523), pushes its requests (RFC 9126), and binds its tokens
to the certificate of its connections (RFC 8705)."""

import json
import os
import sys
from urllib.parse import urlencode

import requests
from authlib.common.security import generate_token
from authlib.integrations.requests_client import OAuth2Session
from authlib.oauth2.rfc7523 import PrivateKeyJWT
from authlib.oauth2.rfc7636 import create_s256_code_challenge
from joserfc.jwk import import_key
from settings import CLIENT_ID, CLOUD_API_URL, REDIRECT_URI, SCOPE, TENANT_AUTHORITY_URL, say

KEY = import_key(json.loads(os.environ["PRIVATE_KEY"]))


def new_session(**options):
    session = OAuth2Session(
        CLIENT_ID, KEY, scope=SCOPE, token_endpoint_auth_method="private_key_jwt", **options
    )
    # The authority takes an assertion for the issuer only, which the library calls `token_endpoint`.
    session.register_client_auth_method(
        PrivateKeyJWT(TENANT_AUTHORITY_URL, alg="ES256", headers={"kid": KEY.kid})
    )
    # A file with the certificate and its key. Every token is bound to it.
    session.cert = os.environ["CLIENT_CERTIFICATE"]
    return session


def main():
    metadata = requests.get(TENANT_AUTHORITY_URL + "/.well-known/openid-configuration", timeout=30).json()
    token_url = metadata["token_endpoint"]
    session = new_session(redirect_uri=REDIRECT_URI)
    verifier, state = generate_token(48), generate_token(30)
    parameters = {
        "response_type": "code",
        "client_id": CLIENT_ID,
        "redirect_uri": REDIRECT_URI,
        "scope": SCOPE,
        "resource": CLOUD_API_URL,
        "state": state,
        "code_challenge": create_s256_code_challenge(verifier),
        "code_challenge_method": "S256",
    }
    # The library has no call for this, but its authentication fits any request.
    pushed = session.post(
        metadata["pushed_authorization_request_endpoint"],
        data=parameters,
        auth=session.client_auth("private_key_jwt"),
        withhold_token=True,
    )
    pushed.raise_for_status()
    reference = urlencode({"client_id": CLIENT_ID, "request_uri": pushed.json()["request_uri"]})
    say(authorization_url=f"{metadata['authorization_endpoint']}?{reference}")

    came_back_to = sys.stdin.readline().strip()
    first = session.fetch_token(
        token_url, authorization_response=came_back_to, state=state, code_verifier=verifier
    )
    say(step="code", **first)
    say(step="refresh", **session.refresh_token(token_url))

    say(step="client_credentials", **new_session().fetch_token(token_url, grant_type="client_credentials"))


main()
