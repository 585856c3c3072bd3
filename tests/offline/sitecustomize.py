"""Put on PYTHONPATH: every attempt to leave this machine fails and is written to the file NETWORK_LOG names."""

import os
import socket

_getaddrinfo, _connect = socket.getaddrinfo, socket.socket.connect


def _refuse(host):
    if host in (None, "", "localhost", "127.0.0.1", "::1", socket.gethostname()):
        return
    with open(os.environ["NETWORK_LOG"], "a", encoding="utf-8") as log:
        log.write(f"{host}\n")
    raise OSError(f"no network in this test: {host}")


def getaddrinfo(host, *args, **kwargs):
    _refuse(host)
    return _getaddrinfo(host, *args, **kwargs)


def connect(self, address):
    if self.family in (socket.AF_INET, socket.AF_INET6):
        _refuse(address[0])
    return _connect(self, address)


socket.getaddrinfo, socket.socket.connect = getaddrinfo, connect
