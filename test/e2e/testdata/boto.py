"""What the tests have boto3 do: boto.py COMMAND ARGUMENTS, with the endpoint in ENDPOINT."""

import json
import os
import sys

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config


def client():
    return boto3.client(
        "s3",
        endpoint_url=os.environ["ENDPOINT"],
        # For addresses that are not Amazon's it would presign by version 2.
        config=Config(signature_version="s3v4", s3={"addressing_style": "path"}, retries={"max_attempts": 0}),
    )


def make(s3, bucket):
    s3.create_bucket(Bucket=bucket)


def upload(s3, folder, bucket, prefix):
    parts = TransferConfig(multipart_threshold=16 << 20, multipart_chunksize=6 << 20, max_concurrency=4)
    for root, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(root, name)
            key = prefix + os.path.relpath(path, folder).replace(os.sep, "/")
            s3.upload_file(path, bucket, key, Config=parts)


def listed(s3, bucket, prefix):
    for page in s3.get_paginator("list_objects").paginate(Bucket=bucket, Prefix=prefix, PaginationConfig={"PageSize": 9}):
        for o in page.get("Contents", []):
            yield o["Key"], o["Size"]


def list_(s3, bucket, prefix):
    print(json.dumps({key[len(prefix):]: size for key, size in listed(s3, bucket, prefix)}))


def download(s3, bucket, prefix, folder):
    for key, _ in listed(s3, bucket, prefix):
        path = os.path.join(folder, key[len(prefix):])
        os.makedirs(os.path.dirname(path), exist_ok=True)
        s3.download_file(bucket, key, path)


def range_(s3, bucket, key, first, last):
    answer = s3.get_object(Bucket=bucket, Key=key, Range=f"bytes={first}-{last}")
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 206, answer
    sys.stdout.buffer.write(answer["Body"].read())


def presign(s3, bucket, key):
    print(s3.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": key}, ExpiresIn=60))


def annotate(s3, path, bucket, key, content_type, note):
    with open(path, "rb") as body:
        s3.put_object(Bucket=bucket, Key=key, Body=body, ContentType=content_type, Metadata={"note": note})
    head = s3.head_object(Bucket=bucket, Key=key)
    print(json.dumps([head["ContentType"], head["Metadata"]["note"]]))


def delete(s3, bucket):
    keys = [{"Key": key} for key, _ in listed(s3, bucket, "")]
    for i in range(0, len(keys), 50):
        answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": keys[i:i + 50]})
        assert not answer.get("Errors"), answer
    s3.delete_bucket(Bucket=bucket)


def sent(s3, path, bucket, key):
    """Put a file and print how its body was signed."""
    seen = []
    s3.meta.events.register("before-send.s3.PutObject", lambda request, **_: seen.append(request.headers))
    with open(path, "rb") as body:
        s3.put_object(Bucket=bucket, Key=key, Body=body)
    value = seen[0]["X-Amz-Content-SHA256"]
    print(value.decode() if isinstance(value, bytes) else value)


COMMANDS = {
    "make": make, "upload": upload, "list": list_, "download": download, "range": range_,
    "presign": presign, "annotate": annotate, "delete": delete, "sent": sent,
}

if __name__ == "__main__":
    COMMANDS[sys.argv[1]](client(), *sys.argv[2:])
