"""Scenes: representations that any guidance can optimise; every module here may register one."""
