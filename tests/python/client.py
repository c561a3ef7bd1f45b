"""A partner's integration on requests-oauthlib, as its documentation shows it.

It is given the Tenant Authority URL, a client id, a redirect URI and scopes as arguments, and the client
secret as the first line of standard input. It says one JSON object a line: first the authorization URL; then
it reads the URL that the browser came back to, and goes on through every grant.
"""

import json
import sys
from urllib.parse import parse_qs, urlsplit, urlunsplit

import requests
from oauthlib.oauth2 import BackendApplicationClient, OAuth2Error, WebApplicationClient
from requests_oauthlib import OAuth2Session

TIMEOUT = 30


def say(**what):
    print(json.dumps(what), flush=True)


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


def main(issuer, client_id, redirect_uri, *scopes):
    secret = sys.stdin.readline().strip()
    metadata = discover(issuer)
    token_url = metadata["token_endpoint"]

    session = OAuth2Session(client_id, redirect_uri=redirect_uri, scope=list(scopes), pkce="S256")
    url, state = session.authorization_url(metadata["authorization_endpoint"])
    say(authorization_url=url, state=state)

    came_back_to = sys.stdin.readline().strip()
    assert parse_qs(urlsplit(came_back_to).query)["iss"] == [issuer], "another issuer answered"
    first = session.fetch_token(
        token_url, authorization_response=came_back_to, client_secret=secret, timeout=TIMEOUT
    )
    say(step="code", **first)

    second = session.refresh_token(token_url, auth=(client_id, secret), timeout=TIMEOUT)
    say(step="refresh", **second)

    def own_token(client, with_secret, **how):
        return OAuth2Session(client=client).fetch_token(
            token_url, client_id=client_id, client_secret=with_secret, timeout=TIMEOUT, **how
        )

    backend = BackendApplicationClient(client_id=client_id)
    say(step="client_credentials", **own_token(backend, secret))
    # The other way of authenticating: id and secret in the body.
    say(step="client_secret_post", **own_token(backend, secret, include_client_id=True))

    greedy = BackendApplicationClient(client_id=client_id, scope=["everything"])
    say(
        step="errors",
        wrong_secret=error_of(lambda: own_token(backend, secret + "x")),
        unknown_scope=error_of(lambda: own_token(greedy, secret)),
    )

    url, headers, body = WebApplicationClient(client_id).prepare_token_revocation_request(
        metadata["revocation_endpoint"], second["refresh_token"], token_type_hint="refresh_token"
    )
    answer = requests.post(
        url, headers=headers, data=body, auth=(client_id, secret), timeout=TIMEOUT
    )
    say(
        step="revoke",
        status=answer.status_code,
        refreshing=error_of(
            lambda: session.refresh_token(token_url, auth=(client_id, secret), timeout=TIMEOUT)
        ),
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
