"""Loops over chosen keys that torch has no single call for, compiled for the CPU by numba. Arrays in, arrays out."""
