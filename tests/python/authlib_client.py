"""A partner's integration on Authlib, as its documentation shows it."""

import json
import os
import sys

import requests
from authlib.common.security import generate_token
from authlib.integrations.base_client import OAuthError
from authlib.integrations.requests_client import OAuth2Session
from authlib.oauth2.rfc7523 import PrivateKeyJWT
from joserfc.jwk import import_key
from settings import (
    CLIENT_ID,
    CLIENT_SECRET,
    CLOUD_API_URL,
    REDIRECT_URI,
    SCOPE,
    TENANT_AUTHORITY_URL,
    say,
)

# The library accepts only https, but this is loopback.
os.environ["AUTHLIB_INSECURE_TRANSPORT"] = "1"


def main():
    metadata = requests.get(TENANT_AUTHORITY_URL + "/.well-known/openid-configuration", timeout=30).json()
    token_url = metadata["token_endpoint"]
    session = OAuth2Session(
        CLIENT_ID,
        CLIENT_SECRET,
        redirect_uri=REDIRECT_URI,
        scope=SCOPE,
        code_challenge_method="S256",
        revocation_endpoint_auth_method="client_secret_basic",
    )
    verifier = generate_token(48)
    url, state = session.create_authorization_url(
        metadata["authorization_endpoint"], code_verifier=verifier, resource=CLOUD_API_URL
    )
    say(authorization_url=url)

    came_back_to = sys.stdin.readline().strip()
    first = session.fetch_token(
        token_url, authorization_response=came_back_to, state=state, code_verifier=verifier
    )
    say(step="code", **first)
    second = session.refresh_token(token_url)
    say(step="refresh", **second)

    backend = OAuth2Session(CLIENT_ID, CLIENT_SECRET, scope=SCOPE)
    say(step="client_credentials", **backend.fetch_token(token_url, grant_type="client_credentials"))

    # The authority takes an assertion for the issuer only, which the library calls `token_endpoint`.
    # Further `claims` would make it repeat the assertion's `jti`.
    key = import_key(json.loads(os.environ["PRIVATE_KEY"]))
    by_key = OAuth2Session(CLIENT_ID, key, token_endpoint_auth_method="private_key_jwt")
    by_key.register_client_auth_method(
        PrivateKeyJWT(TENANT_AUTHORITY_URL, alg="ES256", headers={"kid": key.kid})
    )
    for _ in range(2):
        own = by_key.fetch_token(token_url, grant_type="client_credentials")
    say(step="private_key_jwt", **own)

    answer = session.introspect_token(metadata["introspection_endpoint"], second["access_token"])
    say(step="introspect", **answer.json())

    session.revoke_token(metadata["revocation_endpoint"], second["refresh_token"]).raise_for_status()
    refused = "none"
    try:
        session.refresh_token(token_url, second["refresh_token"])
    except OAuthError as error:
        refused = error.error
    say(step="revoke", refreshing=refused)


main()
