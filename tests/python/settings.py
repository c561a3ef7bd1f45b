"""What a partner's operator hands over, from the environment, and the conversation with the test."""

import json
import os

TENANT_AUTHORITY_URL = os.environ["TENANT_AUTHORITY_URL"]
CLOUD_API_URL = os.environ["CLOUD_API_URL"]
CLIENT_ID = os.environ["CLIENT_ID"]
CLIENT_SECRET = os.environ["CLIENT_SECRET"]
REDIRECT_URI = os.environ["REDIRECT_URI"]
SCOPE = os.environ["SCOPE"]


def say(**what):
    print(json.dumps(what), flush=True)
