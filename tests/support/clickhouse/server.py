#!/usr/bin/env python3
"""A ClickHouse HTTP interface for tests, where no ClickHouse server and no container engine can be had.

It is the real engine (libchdb.so: parser, MergeTree, types, errors) behind a small stand-in for the server's HTTP
handler. It is a test support and no part of the product: no users, no TLS, no sessions, no limits. What it does:

- POST / with the query in the body, or in `query=`; GET with `query=` is read-only by custom alone;
- `INSERT ... FORMAT X` in `query=` with the rows as the body, plain or chunked, also compressed (`decompress=1`, LZ4).
  A body that does not arrive whole inserts nothing;
- `database`, `default_format` and `query_id`; any other parameter is a setting, in force for this request;
- errors as the server words them, with its status and `X-ClickHouse-Exception-Code`;
- `/ping`.

Answers are never compressed (a client may ask; it need not be heeded). Parameterised queries (`param_x`) and
several statements in one request are not refused as the server would. Data is kept in a folder and survives SIGKILL.
"""

import argparse
import http.server
import os
import re
import signal
import socket
import sys
import threading
import urllib.parse
import uuid

import lz4
from engine import Engine, EngineError

# Parameters that speak of the request itself; everything else is a setting.
PROTOCOL = {
    "query", "database", "default_format", "query_id", "decompress", "compress", "enable_http_compression", "user",
    "password", "session_id", "session_timeout", "role", "wait_end_of_query", "buffer_size", "http_zlib_compression_level",
}
INSERT = re.compile(rb"\s*INSERT\s.*\sFORMAT\s+(\w+)\s*;?\s*$", re.IGNORECASE | re.DOTALL)
NOT_FOUND = {46, 47, 60, 81}
BAD_REQUEST = {6, 26, 27, 33, 36, 38, 41, 42, 43, 44, 53, 57, 62, 69, 70, 72, 115, 117, 130, 158, 395}


class Cut(Exception):
    """The request did not arrive whole."""


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "highwater-test-clickhouse"
    engine = None

    def do_GET(self):
        path = urllib.parse.urlsplit(self.path).path
        if path == "/ping":
            self.answer(200, b"Ok.\n")
        else:
            self.run()

    def do_POST(self):
        self.run()

    def run(self):
        parameters = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(self.path).query, keep_blank_values=True))
        try:
            body = self.body()
        except (Cut, ConnectionError, TimeoutError):
            self.close_connection = True
            return
        try:
            answer = self.act(parameters, body)
        except EngineError as error:
            status = 404 if error.code in NOT_FOUND else 400 if error.code in BAD_REQUEST else 500
            self.answer(status, error.text.encode() + b"\n", {"X-ClickHouse-Exception-Code": str(error.code)})
        except ValueError as error:
            text = f"Code: 271. DB::Exception: {error}. (CANNOT_DECOMPRESS)\n"
            self.answer(400, text.encode(), {"X-ClickHouse-Exception-Code": "271"})
        else:
            self.answer(200, answer, {"X-ClickHouse-Query-Id": parameters.get("query_id") or str(uuid.uuid4())})

    def act(self, parameters, body):
        if parameters.get("decompress") == "1":
            body = lz4.decompress(body)
        database = parameters.get("database") or self.headers.get("X-ClickHouse-Database") or "default"
        settings = {name: value for name, value in parameters.items() if name not in PROTOCOL}
        bad = [name for name in settings if not re.fullmatch(r"\w+", name)]
        if bad:
            raise EngineError(f"Code: 115. DB::Exception: Unknown setting '{bad[0]}'. (UNKNOWN_SETTING)")
        sql = parameters.get("query", "").encode()
        insert = INSERT.match(sql)
        if insert:
            return self.engine.insert(database, settings, sql[: insert.start(1)].rstrip()[:-6], insert.group(1), body)
        sql = (sql + b"\n" + body).strip() if sql else body.strip()
        if not sql:
            raise EngineError("Code: 62. DB::Exception: Syntax error: empty query. (SYNTAX_ERROR)")
        output = parameters.get("default_format") or self.headers.get("X-ClickHouse-Format") or "TabSeparated"
        return self.engine.query(database, settings, sql.rstrip(b"; \n"), output.encode())

    def body(self):
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            parts = []
            while True:
                line = self.rfile.readline(64)
                if not line.endswith(b"\n"):
                    raise Cut
                size = int(line.split(b";")[0], 16)
                data = self.exactly(size)
                self.exactly(2)
                if size == 0:
                    return b"".join(parts)
                parts.append(data)
        return self.exactly(int(self.headers.get("Content-Length") or 0))

    def exactly(self, size):
        data = self.rfile.read(size) if size else b""
        if len(data) != size:
            raise Cut
        return data

    def answer(self, status, body, headers=None):
        try:
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Type", "text/plain; charset=UTF-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        except ConnectionError:
            self.close_connection = True

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def process_request(self, request, client_address):
        request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().process_request(request, client_address)

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--library", required=True, help="libchdb.so")
    parser.add_argument("--data", required=True, help="the folder that keeps the data")
    parser.add_argument("--port", type=int, default=0, help="on the loopback address; 0 takes a free one")
    parser.add_argument("--connections", type=int, default=4)
    arguments = parser.parse_args()
    os.makedirs(arguments.data, exist_ok=True)
    Handler.engine = Engine(arguments.library, arguments.data, arguments.connections)
    server = Server(("127.0.0.1", arguments.port), Handler)
    # The engine does not close its tables in order; everything answered is in files by then.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    signal.signal(signal.SIGINT, lambda *_: os._exit(0))
    print(f"listening on http://127.0.0.1:{server.server_address[1]}", flush=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    while True:
        signal.pause()


if __name__ == "__main__":
    main()
