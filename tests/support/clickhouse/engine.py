"""The ClickHouse engine of libchdb.so through its C ABI: queries and inserts as bytes in, bytes out."""

import ctypes
import queue
import re


class EngineError(Exception):
    """What the engine refused, in its own words: `Code: 60. DB::Exception: ...`."""

    def __init__(self, text):
        super().__init__(text)
        found = re.search(r"Code: (\d+)", text)
        self.code = int(found.group(1)) if found else 1002
        self.text = text


def _load(path):
    library = ctypes.CDLL(path)
    pointer, size, text = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p
    for name, answer, arguments in [
        ("chdb_connect", pointer, [ctypes.c_int, ctypes.POINTER(text)]),
        ("chdb_query_n", pointer, [pointer, text, size, text, size]),
        ("chdb_result_buffer", pointer, [pointer]),
        ("chdb_result_length", size, [pointer]),
        ("chdb_result_error", text, [pointer]),
        ("chdb_destroy_query_result", None, [pointer]),
        ("chdb_stream_insert_n", pointer, [pointer, text, size, text, size]),
        ("chdb_stream_append", ctypes.c_int, [pointer, text, size]),
        ("chdb_stream_done", pointer, [pointer]),
        ("chdb_stream_cancel_insert", None, [pointer]),
        ("chdb_stream_insert_error", text, [pointer]),
        ("chdb_destroy_insert_stream", None, [pointer]),
        ("chdb_set_signal_handlers_enabled", None, [ctypes.c_int]),
    ]:
        function = getattr(library, name)
        function.restype, function.argtypes = answer, arguments
    return library


class Engine:
    """One engine over one folder, with a few connections. A connection serves one request at a time."""

    def __init__(self, library, folder, connections):
        self._library = _load(library)
        # The process that embeds it keeps its own signals.
        self._library.chdb_set_signal_handlers_enabled(0)
        self._free = queue.SimpleQueue()
        for _ in range(connections):
            arguments = (ctypes.c_char_p * 2)(b"clickhouse", b"--path=" + folder.encode())
            handle = self._library.chdb_connect(2, arguments)
            if not handle:
                raise RuntimeError(f"the engine does not open {folder}")
            self._free.put(ctypes.c_void_p.from_address(handle).value)

    def query(self, database, settings, sql, output):
        """Runs one query and returns what it answers in a format."""
        return self._with_connection(database, settings, lambda one: self._query(one, sql, output))

    def insert(self, database, settings, sql, data_format, data):
        """Runs an INSERT whose rows are in `data`; all of them or none."""
        return self._with_connection(database, settings, lambda one: self._insert(one, sql, data_format, data))

    def _with_connection(self, database, settings, act):
        connection = self._free.get()
        try:
            self._query(connection, f"USE `{database}`".encode(), b"TSV")
            for name, value in settings.items():
                quoted = value.replace("\\", "\\\\").replace("'", "\\'")
                self._query(connection, f"SET {name} = '{quoted}'".encode(), b"TSV")
            try:
                return act(connection)
            finally:
                for name in settings:
                    self._query(connection, f"SET {name} = DEFAULT".encode(), b"TSV")
        finally:
            self._free.put(connection)

    def _query(self, connection, sql, output):
        return self._taken(self._library.chdb_query_n(connection, sql, len(sql), output, len(output)))

    def _insert(self, connection, sql, data_format, data):
        library = self._library
        stream = library.chdb_stream_insert_n(connection, sql, len(sql), data_format, len(data_format))
        if not stream:
            raise EngineError("Code: 1001. the engine opened no insert")
        try:
            refused = library.chdb_stream_insert_error(stream)
            if not refused and library.chdb_stream_append(stream, data, len(data)) != 0:
                refused = library.chdb_stream_insert_error(stream) or b"Code: 1001. the engine took no more rows"
            if refused:
                text = refused.decode("utf-8", "replace")
                library.chdb_stream_cancel_insert(stream)
                raise EngineError(text)
            return self._taken(library.chdb_stream_done(stream))
        finally:
            library.chdb_destroy_insert_stream(stream)

    def _taken(self, result):
        library = self._library
        if not result:
            raise EngineError("Code: 1001. the engine gave no answer")
        try:
            error = library.chdb_result_error(result)
            if error:
                raise EngineError(error.decode("utf-8", "replace"))
            length = library.chdb_result_length(result)
            return ctypes.string_at(library.chdb_result_buffer(result), length) if length else b""
        finally:
            library.chdb_destroy_query_result(result)
