"""Exits with 0 when the broker at 127.0.0.1:PORT answers an ApiVersions request."""

import socket
import struct
import sys


def main():
    correlation = 7
    request = struct.pack(">hhih", 18, 0, correlation, -1)
    with socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=2) as connection:
        connection.sendall(struct.pack(">i", len(request)) + request)
        answer = connection.recv(10)
    return 0 if len(answer) == 10 and struct.unpack(">iih", answer)[1:] == (correlation, 0) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except OSError:
        sys.exit(1)
