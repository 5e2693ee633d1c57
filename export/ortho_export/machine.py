"""The machine that figures were found on: what quantised kernels are chosen by.

ONNX Runtime and XNNPACK have kernels of their own for each instruction set, and say nothing of
which they took. Sums of 8-bit products are exact in all of them; the scales that inputs are rounded
by are quotients of float32, and the last digit of one decides now and then which of two numbers a
value is rounded to.
"""

from functools import cache

INSTRUCTIONS = {
    "amx_int8": "AMX", "avx512_vnni": "AVX-512 VNNI", "avx_vnni": "AVX-VNNI",
    "avx512_f": "AVX-512", "avx2": "AVX2", "sse4_2": "SSE4.2",
    "sve": "SVE", "arm_i8mm": "I8MM", "i8mm": "I8MM", "arm_dot": "dot products",
    "dotprod": "dot products", "neon": "Neon",
}  # fmt: skip
"""By torch's names, which it has from the processor itself, so an emulated one counts."""


@cache
def this_machine() -> str:
    """Model of the processor and its instruction sets, for a person."""
    import torch

    found = torch.cpu.get_capabilities()
    # Dictionaries keep their order and have each name once.
    sets = dict.fromkeys(text for name, text in INSTRUCTIONS.items() if found.get(name))
    name = " ".join(str(found.get("cpu_name") or found.get("architecture") or "unknown").split())
    return f"{name} ({', '.join(sets) or 'no known instruction sets'})"
