"""Makes unary calls with grpcio at its defaults.

Reads one call a line: {"address", "path", "token", "body" (base64), "times"}. Writes one line a call:
{"codes": [...], "body": the last response in base64}.
"""

import base64
import json
import sys

import grpc

channels = {}
for line in sys.stdin:
    call = json.loads(line)
    address = call["address"]
    channel = channels.setdefault(address, grpc.insecure_channel(address))
    method = channel.unary_unary(call["path"])
    body = base64.b64decode(call["body"])
    metadata = [("authorization", "Bearer " + call["token"])]
    codes, response = [], b""
    for _ in range(call["times"]):
        try:
            response = method(body, metadata=metadata, timeout=30)
            codes.append("OK")
        except grpc.RpcError as error:
            codes.append(error.code().name)
    print(json.dumps({"codes": codes, "body": base64.b64encode(response).decode()}), flush=True)
