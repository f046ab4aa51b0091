"""Stores a folder with boto3, reads it back and deletes it:

    boto.py MODE ENDPOINT BUCKET FROM TO

MODE is botocore's for checksums of requests and answers: when_supported or when_required.
The transfer manager sends and fetches large files in parts, several at once. What is
printed at last is a JSON object of the listed sizes.
"""

import json
import os
import sys

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config

mode, endpoint, bucket, source, target = sys.argv[1:]
s3 = boto3.client("s3", endpoint_url=endpoint, config=Config(
    request_checksum_calculation=mode, response_checksum_validation=mode,
    signature_version="s3v4", s3={"addressing_style": "path"}, retries={"max_attempts": 0},
))
sent = set()
s3.meta.events.register("before-send.s3", lambda request, **_: sent.update(
    name.lower() for name in request.headers if name.lower().startswith("x-amz-checksum-") or name.lower() == "x-amz-trailer"))
parts = TransferConfig(multipart_threshold=9 << 20, multipart_chunksize=7 << 20, max_concurrency=4)


def listed():
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, PaginationConfig={"PageSize": 4}):
        for entry in page.get("Contents", []):
            yield entry["Key"], entry["Size"]


s3.create_bucket(Bucket=bucket)
for root, _, names in os.walk(source):
    for name in names:
        path = os.path.join(root, name)
        s3.upload_file(path, bucket, os.path.relpath(path, source).replace(os.sep, "/"), Config=parts)
sizes = dict(listed())
for key in sizes:
    path = os.path.join(target, key)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    s3.download_file(bucket, key, path, Config=parts)
checked = any(name.startswith(("x-amz-checksum-", "x-amz-trailer")) for name in sent)
if checked != (mode == "when_supported"):
    sys.exit(f"{mode}: of checksums were sent: {sorted(sent)}")
answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": key} for key in sizes]})
if answer.get("Errors"):
    sys.exit(str(answer["Errors"]))
s3.delete_bucket(Bucket=bucket)
print(json.dumps(sizes))
