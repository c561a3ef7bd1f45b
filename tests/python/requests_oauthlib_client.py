"""A partner's integration on requests-oauthlib, as its documentation shows it.

It says one JSON object a line: first the authorization URL; then it reads the URL that the browser came back
to, and goes on through every grant.
"""

import os
import sys
from urllib.parse import parse_qs, urlsplit, urlunsplit

import requests
from oauthlib.oauth2 import BackendApplicationClient, OAuth2Error, WebApplicationClient
from requests_oauthlib import OAuth2Session
from settings import (
    CLIENT_ID,
    CLIENT_SECRET,
    REDIRECT_URI,
    SCOPE,
    TENANT_AUTHORITY_URL,
    say,
)

# The library accepts only https, but this is loopback.
os.environ["OAUTHLIB_INSECURE_TRANSPORT"] = "1"
TIMEOUT = 30


def discover(issuer):
    """The metadata of RFC 8414, at the place that section 3.1 names."""
    parts = urlsplit(issuer)
    path = "/.well-known/oauth-authorization-server" + parts.path
    answer = requests.get(urlunsplit(parts._replace(path=path)), timeout=TIMEOUT)
    answer.raise_for_status()
    metadata = answer.json()
    assert metadata["issuer"] == issuer, "the metadata of another issuer"
    return metadata


def error_of(call):
    """The OAuth error code that a call fails with."""
    try:
        call()
    except OAuth2Error as error:
        return error.error
    return "none"


def main():
    metadata = discover(TENANT_AUTHORITY_URL)
    token_url = metadata["token_endpoint"]

    session = OAuth2Session(CLIENT_ID, redirect_uri=REDIRECT_URI, scope=SCOPE, pkce="S256")
    url, state = session.authorization_url(metadata["authorization_endpoint"])
    say(authorization_url=url)

    came_back_to = sys.stdin.readline().strip()
    answered = parse_qs(urlsplit(came_back_to).query)
    assert answered["iss"] == [TENANT_AUTHORITY_URL], "another issuer answered"
    assert answered["state"] == [state], "the answer to another request"
    first = session.fetch_token(
        token_url, authorization_response=came_back_to, client_secret=CLIENT_SECRET, timeout=TIMEOUT
    )
    say(step="code", **first)

    credentials = (CLIENT_ID, CLIENT_SECRET)
    second = session.refresh_token(token_url, auth=credentials, timeout=TIMEOUT)
    say(step="refresh", **second)

    def own_token(client, with_secret, **how):
        return OAuth2Session(client=client).fetch_token(
            token_url, client_id=CLIENT_ID, client_secret=with_secret, timeout=TIMEOUT, **how
        )

    backend = BackendApplicationClient(client_id=CLIENT_ID)
    say(step="client_credentials", **own_token(backend, CLIENT_SECRET))
    # The other way of authenticating: id and secret in the body.
    say(step="client_secret_post", **own_token(backend, CLIENT_SECRET, include_client_id=True))

    greedy = BackendApplicationClient(client_id=CLIENT_ID, scope=["everything"])
    say(
        step="errors",
        wrong_secret=error_of(lambda: own_token(backend, CLIENT_SECRET + "x")),
        unknown_scope=error_of(lambda: own_token(greedy, CLIENT_SECRET)),
    )

    url, headers, body = WebApplicationClient(CLIENT_ID).prepare_token_revocation_request(
        metadata["revocation_endpoint"], second["refresh_token"], token_type_hint="refresh_token"
    )
    answer = requests.post(url, headers=headers, data=body, auth=credentials, timeout=TIMEOUT)
    answer.raise_for_status()
    refused = error_of(lambda: session.refresh_token(token_url, auth=credentials, timeout=TIMEOUT))
    say(step="revoke", refreshing=refused)


main()
