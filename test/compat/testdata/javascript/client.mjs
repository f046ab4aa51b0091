// Stores a folder with Amazon's SDK for JavaScript, reads it back and deletes it:
//
//	client.mjs ENDPOINT BUCKET FROM TO
//
// Files go up through lib-storage, which sends large ones in parts. What it printed at
// last is a JSON object of the listed sizes.
import { createReadStream, createWriteStream } from "node:fs";
import { mkdir, open, readdir } from "node:fs/promises";
import { dirname, join, relative, sep } from "node:path";
import { pipeline } from "node:stream/promises";
import {
  CreateBucketCommand, DeleteBucketCommand, DeleteObjectsCommand, GetObjectCommand, paginateListObjectsV2, S3Client,
} from "@aws-sdk/client-s3";
import { Upload } from "@aws-sdk/lib-storage";

const [endpoint, Bucket, from, to] = process.argv.slice(2);
const client = new S3Client({ endpoint, forcePathStyle: true });

async function upload(path, Key) {
  await new Upload({
    client, partSize: 8 << 20, queueSize: 4,
    params: { Bucket, Key, Body: createReadStream(path), Metadata: { note: "from-javascript" } },
  }).done();
}

async function list() {
  const sizes = {};
  for await (const page of paginateListObjectsV2({ client, pageSize: 3 }, { Bucket })) {
    for (const object of page.Contents ?? []) sizes[object.Key] = object.Size;
  }
  return sizes;
}

async function download(Key) {
  const path = join(to, Key);
  await mkdir(dirname(path), { recursive: true });
  const answer = await client.send(new GetObjectCommand({ Bucket, Key }));
  if (answer.Metadata.note !== "from-javascript") throw new Error(`${Key}: metadata ${JSON.stringify(answer.Metadata)}`);
  await pipeline(answer.Body, createWriteStream(path));
}

// tail reads the last bytes of an object and of its file.
async function tail(Key, size) {
  const count = Math.min(size, 1000);
  const answer = await client.send(new GetObjectCommand({ Bucket, Key, Range: `bytes=-${count}` }));
  const got = Buffer.from(await answer.Body.transformToByteArray());
  const file = await open(join(from, Key));
  const want = Buffer.alloc(count);
  await file.read(want, 0, count, size - count);
  await file.close();
  if (!got.equals(want)) throw new Error(`${Key}: its last ${count} bytes differ`);
}

await client.send(new CreateBucketCommand({ Bucket }));
for (const entry of await readdir(from, { recursive: true, withFileTypes: true })) {
  if (!entry.isFile()) continue;
  const path = join(entry.parentPath ?? entry.path, entry.name);
  await upload(path, relative(from, path).split(sep).join("/"));
}
const sizes = await list();
for (const [key, size] of Object.entries(sizes)) {
  await download(key);
  if (size > 0) await tail(key, size);
}
const Objects = Object.keys(sizes).map((Key) => ({ Key }));
const deleted = await client.send(new DeleteObjectsCommand({ Bucket, Delete: { Objects } }));
if (deleted.Errors?.length) throw new Error(JSON.stringify(deleted.Errors));
await client.send(new DeleteBucketCommand({ Bucket }));
console.log(JSON.stringify(sizes));
