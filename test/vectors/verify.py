#!/usr/bin/env python3
"""Recomputes the frozen vectors from FORMAT.md alone, and has deploy/break-glass/read.py open them and refuse the hostile ones.
Needs the cryptography package."""
import base64, functools, hashlib, hmac, io, json, os, struct, sys
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, padding
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

CHUNK = 16384
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "..", "deploy", "break-glass"))
import read
from crc64nvme import crc64nvme


def unhex(v):
    return bytes.fromhex(v or "")


def lp(x):
    return struct.pack(">I", len(x)) + x


def b64(x):
    return base64.urlsafe_b64encode(x).rstrip(b"=").decode()


def text(seed, n):
    key = hashlib.sha256(seed.encode()).digest()
    return Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor().update(bytes(n))


def message(key, salt, ctx, pt):
    info = b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\0" + salt + ctx
    okm = HKDFExpand(hashes.SHA512(), 76, info).derive(key)
    aead, base, out = AESGCM(okm[:32]), int.from_bytes(okm[32:44], "big"), [salt, okm[44:]]
    for i in range(len(pt) // CHUNK + 1):
        out.append(aead.encrypt((base ^ i).to_bytes(12, "big"), pt[i * CHUNK:(i + 1) * CHUNK], None))
    return b"".join(out)


def size(n):
    return n + 16 * (n // CHUNK) + 112 * min(9999, 1 + n // 5242880) + 176


def seal_object(v):
    dek, plain = unhex(v["dek"]), text(v["seed"], v["length"])
    at, body, entries, bound = 0, b"", b"", True
    for p in v["parts"]:
        salt, data = unhex(p["salt"]), plain[at:at + p["length"]]
        at += p["length"]
        body += message(dek, salt, b"cho1/part\0" + struct.pack(">H", p["number"]), data)
        entries += struct.pack(">Q", p["number"] << 48 | p["length"]) + (bytes(24) if p.get("unbound") else salt)
        bound = bound and not p.get("unbound")
    head = struct.pack(">BBHIQQQ", 1, bound, 0, len(v["parts"]), v["length"], crc64nvme(plain) if bound else 0, 0)
    if late := v.get("late_checksum"):
        value = unhex(late["value"])
        head += struct.pack(">BBH", late["algorithm"], late["scope"], len(value)) + value
    head = head.ljust(104, b"\0")
    if md5 := v.get("late_md5"):
        head = head[:1] + bytes([head[1] | 2]) + head[2:84] + unhex(md5) + head[100:]
    t = message(dek, unhex(v["trailer_salt"]), b"cho1/trl\0", head + entries)
    end = t + struct.pack(">I", len(t)) + b"CHO1"
    return plain, body + bytes(size(v["length"]) - len(body) - len(end)) + end


@functools.lru_cache(maxsize=None)
def load(name):
    with open(os.path.join(HERE, name + ".json"), encoding="utf-8") as f:
        return json.load(f)


def envelope_of(v):
    length, salt = (v["length"], unhex(v["parts"][0]["salt"])) if v["kind"] == 0 else (2**64 - 1, bytes(24))
    return read.Envelope(v["kind"], unhex(v["dek"]), length, salt, 0, [])


def check_object(v):
    plain, stored = seal_object(v)
    return (len(stored) == v["stored"] and hashlib.sha256(plain).hexdigest() == v["plain_sha256"]
            and hashlib.sha256(stored).hexdigest() == v["stored_sha256"]
            and b"".join(read.plaintext(io.BytesIO(stored), v["stored"], envelope_of(v))) == plain)


def tlv(kind, value):
    return struct.pack(">BH", kind, len(value)) + value


def check_envelope(v):
    e = struct.pack(">BB", 1, v["kind"]) + unhex(v["dek"])
    e += struct.pack(">Q", 2**64 - 1 if v["kind"] else v["length"]) + unhex(v["part_salt"]) + struct.pack(">Q", v["created_ms"])
    e += b"".join(tlv(i + 1, h.encode()) for i, h in enumerate(v["headers"]) if h)
    if v.get("redirect"):
        e += tlv(7, v["redirect"].encode())
    e += b"".join(tlv(16, lp(p["Name"].encode()) + p["Value"].encode()) for p in v["user_metadata"] or [])
    for c in v["checksums"] or []:
        value = struct.pack(">BB", c["algorithm"], c["scope"]) + unhex(c["value"])
        e += tlv(32, value + (struct.pack(">H", c["parts"]) if c["scope"] else b""))
    if v.get("md5"):
        e += tlv(33, unhex(v["md5"]))
    if v.get("late_checksum"):
        e += tlv(34, bytes([v["late_checksum"]]))
    if v.get("late_md5"):
        e += tlv(35, b"")
    ctx = b"cho1/env\0" + lp(unhex(v["space"])) + lp(v["key"].encode())
    header = "1." + b64(unhex(v["key_id"]) + message(unhex(v["bucket_key"]), unhex(v["salt"]), ctx, e))
    keys = {unhex(v["key_id"]): (unhex(v["bucket_key"]), unhex(v["space"]))}
    opened = read.open_envelope(header, keys, v["key"].encode())
    again = b"".join(tlv(*a) for a in opened.attributes)
    return header == v["header"] and e[:74] == struct.pack(">BB32sQ24sQ", 1, *opened[:5]) and e[74:] == again


@functools.lru_cache(maxsize=None)
def hostile_base(name):
    v = next(o for o in load("objects") if o["name"] == name)
    return v, *seal_object(v)


def edited(v):
    b = bytearray(hostile_base(v["object"])[2])
    for e in v.get("edits") or []:
        at, n, src = e.get("at", 0), e.get("len", 0), e.get("src", 0)
        if e["op"] == "flip":
            b[at] ^= 1
        elif e["op"] == "cut":
            del b[at:at + n]
        elif e["op"] == "insert":
            b[at:at] = bytes(n)
        elif e["op"] == "copy":
            b[at:at + n] = hostile_base(e["from"])[2][src:src + n]
    return bytes(b)


def check_hostile(v):
    got = b""
    try:
        if "header" in v:
            read.open_envelope(v["header"], AnyKey(v), v["key"].encode())
            return False
        stored = edited(v)
        base, plain, _ = hostile_base(v.get("envelope_of") or v["object"])
        if hashlib.sha256(stored).hexdigest() != v["stored_sha256"]:
            return False
        for piece in read.plaintext(io.BytesIO(stored), v.get("stored", 0), envelope_of(base)):
            got += piece
        return False
    except ValueError:
        return "header" in v or plain.startswith(got) and len(got) < len(plain)


class AnyKey(dict):
    """Has the vector's key under every id: that of the header does not matter here."""

    def __init__(self, v):
        self.pair = unhex(v["bucket_key"]), unhex(v["space"])

    def __contains__(self, _):
        return True

    def __getitem__(self, _):
        return self.pair


def check_upload(v):
    upload, dek = v["upload_id"].encode(), unhex(v["dek"])
    ctx = b"cho1/upl\0" + lp(unhex(v["space"])) + lp(v["key"].encode()) + lp(upload)
    pt = dek + struct.pack(">QBB", v["created_ms"], v["algorithm"], v["scope"])
    stash = unhex(v["key_id"]) + message(unhex(v["bucket_key"]), unhex(v["salt"]), ctx, pt)
    token = unhex(v["part_salt"]) + struct.pack(">Q", v["part_length"])[2:]
    token += struct.pack(">Q", int(v["part_crc64nvme"])) + unhex(v.get("part_checksum"))
    key = HKDFExpand(hashes.SHA256(), 32, b"cho1/etag").derive(dek)
    signed = lp(upload) + struct.pack(">H", v["part"]) + lp(v["backend_etag"].encode()) + token
    visible = v["backend_etag"] + "-" + b64(token + hmac.digest(key, signed, "sha256")[:10])
    folder = ".chatelaine/uploads/" + hashlib.sha256(upload).hexdigest()[:32] + "/"
    return stash.hex() == v["stash"] and visible == v["visible_etag"] and folder == v["stash_dir"]


def fingerprint(key):
    return "SHA256:" + base64.b64encode(hashlib.sha256(key).digest()).decode().rstrip("=")


def open_copy(text, trusted):
    """Opens the recovery copy of a mirror, from kms/DECISIONS.md alone."""
    with open(os.path.join(HERE, "recovery-key.pem"), "rb") as f:
        key = serialization.load_pem_private_key(f.read(), None)
    public = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    m = json.loads(text)
    c = m.get("recovery", {})
    if m["chatelaine"] != "bucket-key/2" or set(c) != {"rsa", "wrapped", "signer", "signature"}:
        return "", "invalid"
    wrapped, signer, signature = (base64.b64decode(c[k]) for k in ("wrapped", "signer", "signature"))
    fields = "1", m["space"], m["id"], str(m["epoch"]), fingerprint(public)
    label = b"cho1/recovery\0" + b"".join(lp(f.encode()) for f in fields)
    try:
        signed = b"chatelaine recovery copy\0" + lp(label) + wrapped
        ed25519.Ed25519PublicKey.from_public_bytes(signer).verify(signature, signed)
    except InvalidSignature:
        return label.hex(), "corrupt"
    if fingerprint(signer) != trusted:
        return label.hex(), "denied"
    oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), label)
    return label.hex(), key.decrypt(wrapped, oaep).hex()


def check_recovery(v):
    return open_copy(v["mirror"], v["trusted"]) == (v.get("label", ""), v.get("secret") or v["want"])


def main():
    failed = 0
    for name, check in ("objects", check_object), ("envelopes", check_envelope), ("uploads", check_upload), ("hostile", check_hostile), ("recovery", check_recovery):
        bad = [v["name"] for v in load(name) if not check(v)]
        failed += len(bad)
        print(f"{name}: {len(load(name)) - len(bad)} of {len(load(name))} agree", *bad, sep="\n  " if bad else "")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
