"""Benchmarks that ship with the program: small experiments whose outcome is known beforehand."""
