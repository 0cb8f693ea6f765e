"""A program of a few hundred bytes that joins its standard streams to a unix socket, for containers.

To be the superuser by peer authentication, a connection must come to the server's socket from a process of the account
``postgres`` inside the container. An image with just PostgreSQL's binaries holds nothing that could pass one on: no socat,
Perl or Python, and bash opens TCP only. So this is put beside the server. It needs no library and no shell: Linux system
calls, written in assembly in ``relay/``, where each instruction says why; the tests assemble it and compare.
"""

import struct

ADDRESS = 0x400000
CODE = {
    "x86_64": (
        "488b6c24104881ec00210000b829000000bf01000000be0100000031d20f0589c366c704240100488d7c24024889eeb96b00"
        "0000acaa84c07402e2f8b82a00000089df4889e6ba6e0000000f0585c0bf010000000f888c000000b8270000000f05898424"
        "80200000b8390000000f0589c585c074084531e44189ddeb094189dc41bd0100000031c04489e74889e6ba002000000f0548"
        "85c07e254989e64989c7b8010000004489ef4c89f64c89fa0f054885c07e0a4901c64929c775e3ebc7b83000000089dfbe02"
        "0000000f0585ed7513b83e0000008bbc2480200000be0f0000000f0531ffb83c0000000f05"
    ),
    "aarch64": (
        "f30b40f9ff0b40d1ff0304d1200080d2210080d2020080d2c81880d2010000d4f40300aa20008052e0030079e10b0091620d"
        "80d2601640382014003860000034420400f181ffff54e00314aae1030091c20d80d2681980d2010000d4e30300aa200080d2"
        "0306f8b7881580d2010000d4f90300aa200280d2010080d2020080d2030080d2040080d2881b80d2010000d4f30300aa8000"
        "00b4150080d2f60314aa03000014f50314aa360080d2e00315aae1030091020084d2e80780d2010000d41f0000f1cd010054"
        "f7030091f80300aae00316aae10317aae20318aa080880d2010000d41f0000f1ad000054f702008b180300ebe1feff54edff"
        "ff17e00314aa410080d2481a80d2010000d4b30000b5e00319aae10180d2281080d2010000d4000080d2a80b80d2010000d4"
    ),
}
MACHINES = {"x86_64": 62, "aarch64": 183}
"""ELF's numbers (elf.h, EM_…)."""


def program(architecture: str) -> bytes:
    """The executable for a Linux of that architecture, as Docker calls it: one segment, loaded whole.

    Raises `KeyError` for any but "x86_64" and "aarch64".
    """
    code = bytes.fromhex(CODE[architecture])
    headers = 64 + 56
    size = headers + len(code)
    identity = b"\x7fELF" + bytes([2, 1, 1])  # 64 bits, little endian, version 1
    entry = ADDRESS + headers
    header = struct.pack(
        "<16sHHIQQQIHHHHHH", identity, 2, MACHINES[architecture], 1, entry, 64, 0, 0, 64, 56, 1, 0, 0, 0
    )
    return header + struct.pack("<IIQQQQQQ", 1, 5, 0, ADDRESS, ADDRESS, size, size, 0x1000) + code
