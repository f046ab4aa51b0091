#!/usr/bin/env python3
"""Opens a wrapped bucket key (.chatelaine/keys/ID) without Chatelaine: section 9 of gateway/sealed/FORMAT.md, with the token's PKCS#11
library, the offline recovery key or, where keys are software, the KEK itself. Writes the key in hex. For PKCS#11 the standard library is enough."""
import argparse, base64, ctypes as c, getpass, hashlib, hmac, json, os, struct, sys

UL, P, BUF = c.c_ulong, c.c_void_p, c.create_string_buffer
# The places of functions in CK_FUNCTION_LIST (PKCS#11 v2.40, behind the version).
INITIALIZE, FINALIZE, SLOTS, TOKEN, SESSION, LOGIN, FIND_INIT, FIND, FIND_END, DECRYPT_INIT, DECRYPT, SIGN_INIT, SIGN = 1, 2, 5, 7, 13, 19, 27, 28, 29, 34, 35, 43, 44
SECRET, PRIVATE, AES_CBC_PAD, AES_GCM, RSA_OAEP, SHA256_HMAC = 4, 3, 0x1085, 0x1087, 9, 0x251

class Attribute(c.Structure):
    _fields_ = [("type", UL), ("value", P), ("length", UL)]

class Mechanism(Attribute):  # the same three fields: type, parameter, its length
    pass

class GCM(c.Structure):
    _fields_ = [("iv", P), ("iv_len", UL), ("iv_bits", UL), ("aad", P), ("aad_len", UL), ("tag_bits", UL)]

class OAEP(c.Structure):
    _fields_ = [("hash", UL), ("mgf", UL), ("source", UL), ("data", P), ("data_len", UL)]

def pointer(x):
    return c.cast(c.byref(x) if isinstance(x, c.Structure) else x, P)

class Token:
    def __init__(self, module, label, pin):
        table = c.POINTER(P)()
        c.CDLL(module).C_GetFunctionList(c.byref(table))
        self.table = table
        self.call(INITIALIZE, P())
        count, slots, self.session = UL(64), (UL * 64)(), UL()
        self.call(SLOTS, c.c_ubyte(1), slots, c.byref(count))
        found = [s for s in slots[:count.value] if self.label(s) == label]
        if len(found) != 1:
            sys.exit(f"{len(found)} tokens have the label {label!r}")
        self.call(SESSION, UL(found[0]), UL(4), P(), P(), c.byref(self.session))
        self.call(LOGIN, self.session, UL(1), pin, UL(len(pin)))

    def call(self, place, *args):
        code = c.CFUNCTYPE(UL)(self.table[place])(*args)
        if code:
            sys.exit(f"PKCS#11 function {place} answers 0x{code:x}")

    def label(self, slot):
        info = BUF(512)  # CK_TOKEN_INFO begins with the label
        self.call(TOKEN, UL(slot), info)
        return info.raw[:32].decode(errors="replace").rstrip()

    def key(self, kind, label):
        kind, text, keys, count = UL(kind), BUF(label.encode(), len(label.encode())), (UL * 2)(), UL()
        wanted = (Attribute * 2)((0, pointer(c.pointer(kind)), c.sizeof(UL)), (3, pointer(text), len(text)))
        self.call(FIND_INIT, self.session, wanted, UL(2))
        self.call(FIND, self.session, keys, UL(2), c.byref(count))
        self.call(FIND_END, self.session)
        if count.value != 1:
            sys.exit(f"the token has {count.value} keys of the label {label!r}")
        return UL(keys[0])

    def use(self, begin, end, key, mechanism, parameter, data):
        size = c.sizeof(parameter) if parameter is not None else 0
        m, out, n = Mechanism(mechanism, pointer(parameter) if size else None, size), BUF(2048), UL(2048)
        self.call(begin, self.session, c.byref(m), key)
        self.call(end, self.session, data, UL(len(data)), out, c.byref(n))
        return out.raw[:n.value]

def by_token(token, label, wrapped, aad):
    form, body = wrapped[0], wrapped[1:]
    if form in (1, 5):
        n = 12 if form == 1 else 16
        iv, bound = BUF(body[:n], n), BUF(aad, len(aad))
        parameter = GCM(pointer(iv), n, 8 * n, pointer(bound), len(aad), 128)
        return token.use(DECRYPT_INIT, DECRYPT, token.key(SECRET, label), AES_GCM, parameter, body[n:])
    if form in (2, 3):
        parameter = OAEP(0x250, 2, 1, None, 0) if form == 2 else OAEP(0x220, 1, 1, None, 0)
        return token.use(DECRYPT_INIT, DECRYPT, token.key(PRIVATE, label), RSA_OAEP, parameter, body)
    if form == 4:
        signed = struct.pack(">Q", 8 * len(aad)) + aad + body[:-32]
        mac = token.use(SIGN_INIT, SIGN, token.key(SECRET, label + "#mac"), SHA256_HMAC, None, signed)
        if not hmac.compare_digest(mac, body[-32:]):
            sys.exit("REFUSED: the MAC of the wrapped key is wrong")
        return token.use(DECRYPT_INIT, DECRYPT, token.key(SECRET, label + "#enc"), AES_CBC_PAD, BUF(body[:16], 16), body[16:-32])
    sys.exit(f"a token does not wrap in the form 0x{form:02x}")

def by_kek(kek, wrapped, aad):
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    n = 16 if wrapped[0] == 5 else 12
    if wrapped[0] not in (1, 5, 0x21, 0xF1):
        sys.exit(f"the form 0x{wrapped[0]:02x} is not of AES-GCM")
    return AESGCM(kek).decrypt(wrapped[1:1 + n], wrapped[1 + n:], aad)

def fields(label, *texts):
    return label + b"\0" + b"".join(struct.pack(">I", len(t.encode())) + t.encode() for t in texts)

def fingerprint(raw):
    return "SHA256:" + base64.b64encode(hashlib.sha256(raw).digest()).rstrip(b"=").decode()

def by_recovery_key(pem, m, signer):
    from cryptography.hazmat.primitives import hashes, serialization as s
    from cryptography.hazmat.primitives.asymmetric import ed25519, padding
    copy = m.get("recovery") or {}
    if "rsa" not in copy:
        sys.exit("the mirror has no recovery copy under an RSA key")
    try:
        key = s.load_pem_private_key(pem, None)
    except TypeError:  # it has a passphrase
        key = s.load_pem_private_key(pem, getpass.getpass("passphrase: ").encode())
    spki = key.public_key().public_bytes(s.Encoding.DER, s.PublicFormat.SubjectPublicKeyInfo)
    wrapped, maker = base64.b64decode(copy["wrapped"]), base64.b64decode(copy["signer"])
    label = fields(b"cho1/recovery", "1", m["space"], m["id"], str(m["epoch"]), copy["rsa"])
    if fingerprint(spki) != copy["rsa"] or fingerprint(maker) != signer:
        sys.exit(f"REFUSED: the copy is for {copy['rsa']} and signed by {fingerprint(maker)}")
    signed = b"chatelaine recovery copy\0" + struct.pack(">I", len(label)) + label + wrapped
    ed25519.Ed25519PublicKey.from_public_bytes(maker).verify(base64.b64decode(copy["signature"]), signed)
    return key.decrypt(wrapped, padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), label))

def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--mirror", required=True, help="the file .chatelaine/keys/ID of the bucket")
    p.add_argument("--out", required=True, help="file to make, with the bucket key in hex: a secret")
    p.add_argument("--module", help="the token's PKCS#11 library")
    p.add_argument("--token", help="label of the token")
    p.add_argument("--pin-file", help="file with the PIN; without, it is asked for")
    p.add_argument("--prefix", default="", help="what labels of keys begin with (prefix in kms.yaml)")
    p.add_argument("--kek-file", help="instead of a token: file with an AES-256 KEK in hex")
    p.add_argument("--recovery-key", help="instead of a token: the offline RSA key, in PEM")
    p.add_argument("--signer", help="with --recovery-key: what `chatelaine report key` showed of the KMS")
    a = p.parse_args()
    m = json.load(open(a.mirror))
    wrapped, version = base64.b64decode(m["wrapped"], validate=True), str(m["kek_version"])
    aad = fields(b"cho1/wrap", "bucket-key", m["kek"], version, m["space"], m["id"])
    if a.recovery_key:
        bound = hashlib.sha256(aad).digest() + by_recovery_key(open(a.recovery_key, "rb").read(), m, a.signer)
    elif a.kek_file:
        bound = by_kek(bytes.fromhex(open(a.kek_file).read().split()[-1]), wrapped, aad)
    else:
        pin = open(a.pin_file).read().rstrip("\r\n") if a.pin_file else getpass.getpass("PIN: ")
        bound = by_token(Token(a.module, a.token, pin.encode()), f"{a.prefix}{m['kek']}.v{version}", wrapped, aad)
    if len(bound) != 64 or not hmac.compare_digest(bound[:32], hashlib.sha256(aad).digest()):
        sys.exit("REFUSED: the wrapped key is bound to another bucket, key or version")
    with open(os.open(a.out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
        out.write(bound[32:].hex() + "\n")

if __name__ == "__main__":
    main()
