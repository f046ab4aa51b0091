"""CRC-64/NVME, which the standard library has not, at tens of MB/s: polynomial 0xAD93D23594C93659, reflected, all ones before and after."""
import functools

def crc_step(v, bits):  # times x^bits modulo the polynomial of CRC-64/NVME; numbers are reflected
    for _ in range(bits):
        v = v >> 1 ^ (0x9A6C9329AC4BC9B5 if v & 1 else 0)
    return v

@functools.lru_cache
def crc_power(n):  # which bits x^n modulo the polynomial has
    v = 1 << 62
    for bit in bin(n)[3:]:
        v = functools.reduce(int.__xor__, (crc_step(v, i) for i in range(64) if v >> 63 - i & 1))
        v = crc_step(v, int(bit))
    return [i for i in range(64) if v >> i & 1]

def crc64nvme(data, crc=0):
    """Half of the bits are folded onto the rest until few are left: XORs of long numbers instead of a loop over bytes."""
    v, n = int.from_bytes(data, "little") ^ crc ^ 2**64 - 1, 8 * len(data)
    while n > 256:
        k = (n - 64) // 2
        low, v = v & (1 << k) - 1, v >> k
        for i in crc_power(n - k):
            v ^= low << n - 2 * k - 63 + i
        n -= k
    return crc_step(v, n) ^ 2**64 - 1
