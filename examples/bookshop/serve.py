"""
Run an application on a listening socket that this process inherited: `python serve.py services.orders:app 7`.

uvicorn's own `--fd` takes every socket for one of the Unix family, so connections go without TCP_NODELAY.
"""

from __future__ import annotations

import socket
import sys

import uvicorn

if __name__ == "__main__":
    application, descriptor = sys.argv[1:]
    config = uvicorn.Config(application, access_log=False, timeout_graceful_shutdown=1)
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=int(descriptor))])
