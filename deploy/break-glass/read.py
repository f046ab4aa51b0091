#!/usr/bin/env python3
"""Reads one sealed object without Chatelaine: gateway/sealed/FORMAT.md on python3-cryptography alone. README.md says how."""
import argparse, base64, bisect, hmac, json, os, struct, sys, uuid
from collections import namedtuple
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from crc64nvme import crc64nvme

C, MIN_PART, MAX_PART, MAX_PARTS, SLOTS, HEADER = 16384, 5 << 20, 5 << 30, 10000, 9999, 56
NAMES = ("Content-Type", "Content-Encoding", "Content-Disposition", "Content-Language", "Cache-Control", "Expires", "Website-Redirect-Location")
Envelope = namedtuple("Envelope", "kind dek length salt created_ms attributes")

class Refused(ValueError):
    """The bytes are not those that were sealed, or not of a version that this program knows."""

def need(right, what):
    if not right:
        raise Refused(what)

def message_keys(key, salt, ctx):
    """Section 1: the header that a message must have, and what opens chunk i of it, which holds length bytes."""
    info = b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\0" + salt + ctx
    okm = HKDFExpand(hashes.SHA512(), 76, info).derive(key)
    aead, base = AESGCM(okm[:32]), int.from_bytes(okm[32:44], "big")
    def chunk(i, sealed, length):
        need(len(sealed) == length + 16, "it ends early")
        try:
            return aead.decrypt((base ^ i).to_bytes(12, "big"), sealed, None)
        except InvalidTag:
            raise Refused(f"chunk {i} has a wrong tag") from None
    return salt + okm[44:], chunk

def open_message(key, ctx, sealed):
    (header, chunk), body = message_keys(key, sealed[:24], ctx), sealed[HEADER:]
    need(hmac.compare_digest(header, sealed[:HEADER]), "wrong key, name or place")
    last = len(body) // (C + 16)
    sealed = [body[i * (C + 16):(i + 1) * (C + 16)] for i in range(last + 1)]
    return b"".join(chunk(i, sealed[i], C if i < last else max(0, len(sealed[i]) - 16)) for i in range(last + 1))

def message_size(n):
    return HEADER + n + 16 * (n // C + 1)

def size_law(n):  # section 4
    return n + 16 * (n // C) + 112 * min(SLOTS, 1 + n // MIN_PART) + 176

def plain_size(stored):
    n = bisect.bisect_left(range(stored + 1), stored, key=size_law)
    need(size_law(n) == stored and n <= MAX_PARTS * MAX_PART, f"no object is stored in {stored} bytes")
    return n

def open_envelope(header, keys, name):
    """Section 3. keys has pairs of a bucket key and its space, by the key's id."""
    raw = base64.urlsafe_b64decode(header[2:].encode() + b"===")
    strict = base64.urlsafe_b64encode(raw).rstrip(b"=").decode() == header[2:]
    need(header[:2] == "1." and len(header) <= 2033 and strict, "it has no envelope of this version")
    need(raw[:16] in keys, f"its bucket key is another: {raw[:16].hex()}")
    key, space = keys[raw[:16]]
    e = open_message(key, b"cho1/env\0" + b"".join(struct.pack(">I", len(x)) + x for x in (space, name)), raw[16:])
    need(len(e) >= 74 and e[0] == 1, "it has no envelope of this version")
    env, at = Envelope(*struct.unpack(">xB32sQ24sQ", e[:74]), []), 74
    single, multi = env.length <= MAX_PART and any(env.salt), env.length == 2**64 - 1 and not any(env.salt)
    need((env.kind == 0 and single or env.kind == 1 and multi) and any(env.dek), "the envelope contradicts itself")
    while at < len(e):
        need(len(e) >= at + 3 and e[at] < 128, "an attribute is cut, or of a later version")
        tlv, n = struct.unpack(">BH", e[at:at + 3])
        env.attributes.append((tlv, e[at + 3:at + 3 + n]))
        at += 3 + n
    once = [tlv for tlv, _ in env.attributes if tlv < 8 or 33 <= tlv <= 35]
    need(at == len(e) and len(once) == len(set(once)), "an attribute is cut or repeated")
    return env

def describe(attributes):
    """What the client said of the object: headers and user metadata by name, the rest as type and hex."""
    for tlv, v in attributes:
        if tlv == 16:
            n = 4 + struct.unpack(">I", v[:4])[0]
            yield "x-amz-meta-" + v[4:n].decode(errors="replace"), v[n:].decode(errors="replace")
        else:
            yield (NAMES[tlv - 1], v.decode(errors="replace")) if 1 <= tlv <= 7 else (f"TLV {tlv}", v.hex())

def read_trailer(f, size, env):
    """T of section 4: how long it is with its footer, the CRC or None, the parts as (number, length, salt), and bytes 32 to 99 of H."""
    length = plain_size(size)
    f.seek(max(0, size - message_size(104 + 32 * min(MAX_PARTS, 1 + length // MIN_PART)) - 8))
    end = f.read(size - f.tell())
    n = struct.unpack(">I", end[-8:-4])[0] if end[-4:] == b"CHO1" and len(end) >= 8 else len(end)
    need(n <= len(end) - 8 and f.tell() == size and not f.read(1), "there is no trailer at the end")
    t = open_message(env.dek, b"cho1/trl\0", end[-8 - n:-8])
    need(len(t) >= 136 and t[0] == 1, "it is no trailer of this version")
    _, flags, zero, count, total, crc, zeros = struct.unpack(">BBHIQQQ", t[:32])
    need(flags < 4 and not (zero or zeros or any(t[100:104])) and (flags & 1 or not crc) and len(t) == 104 + 32 * count, "the trailer is malformed")
    entries = [t[i:i + 32] for i in range(104, len(t), 32)]
    parts = [(*struct.unpack(">HQ", e[:2] + b"\0\0" + e[2:8]), e[8:]) for e in entries]
    numbers, lengths = [p[0] for p in parts], [p[1] for p in parts]
    need(total == length == sum(lengths) and max(lengths) <= MAX_PART and count <= MAX_PARTS, "lengths in the trailer differ")
    ordered = all(a < b for a, b in zip([0] + numbers, numbers)) and numbers[-1] <= MAX_PARTS and min(lengths[:-1] + [MIN_PART]) >= MIN_PART
    need(ordered if env.kind else parts == [(0, env.length, env.salt)], "the parts in the trailer are not those of this object")
    return n + 8, crc if flags & 1 else None, parts, t[32:100]

def plaintext(f, size, env):
    """Yields what is authentic, and the last piece only when the whole object is. Section 5."""
    need(env.kind or size == size_law(env.length), f"{size} bytes are stored for {env.length} of plaintext")
    tail, want, parts, _ = read_trailer(f, size, env)
    crc, held = 0, b""
    f.seek(0)
    for number, length, salt in parts:
        header = f.read(HEADER)
        right, chunk = message_keys(env.dek, header[:24], b"cho1/part\0" + struct.pack(">H", number))
        need(hmac.compare_digest(right, header) and (header[:24] == salt or not any(salt)), f"part {number} is not the one in the trailer")
        for i in range(length // C + 1):
            n = min(C, length - i * C)
            if piece := chunk(i, f.read(n + 16), n):
                crc = crc64nvme(piece, crc)
                yield held
                held = piece
    need(f.tell() <= size - tail and crc == (crc if want is None else want), "the parts do not come to what the trailer says")
    yield held

def main():
    p = argparse.ArgumentParser(description=__doc__)
    for name, what in (("object", "the stored bytes"), ("envelope", "file with the value of x-amz-meta-cho1"), ("key", "the object's name"),
                       ("mirror", ".chatelaine/keys/ID of the bucket"), ("bucket-key", "file with the key of unwrap.py"), ("out", "file to make")):
        p.add_argument("--" + name, required=True, help=what)
    a = p.parse_args()
    partial = a.out + ".partial"
    try:
        mirror, header = json.load(open(a.mirror)), open(a.envelope).read().strip()
        keys = {bytes.fromhex(mirror["id"]): (bytes.fromhex(open(a.bucket_key).read()), uuid.UUID(mirror["space"]).bytes)}
        env = open_envelope(header, keys, os.fsencode(a.key))
        with open(a.object, "rb") as f, open(partial, "xb") as out:
            for piece in plaintext(f, os.fstat(f.fileno()).st_size, env):
                out.write(piece)
            out.flush()
            os.fsync(out.fileno())
        os.link(partial, a.out)  # fails where there is one
    except Exception as e:  # whatever a forged file leads to
        sys.exit(f"REFUSED: {a.object}: {e}")
    finally:
        os.path.exists(partial) and os.remove(partial)
    print(json.dumps({"created_ms": env.created_ms, "attributes": list(describe(env.attributes))}, indent=1))

if __name__ == "__main__":
    main()
