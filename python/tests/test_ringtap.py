"""Events from Python, read back from live buffers and files. Run by cargo, with RINGTAP_LIBRARY and RINGTAP_TRACE set."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import unittest

import ringtap

every = ringtap.Event(
    "python",
    "every",
    symbols={"source": {0: "disk", 1: "cache"}},
    a="u8",
    b="s64",
    c="bool",
    d="f64",
    source="u8",
    name="text[8]",
    some="u32[3]",
    path="string",
    data="bytes",
    more="s16[]",
)
numbers = ringtap.Event("python", "numbers", a="u64", b="u32", c="s32")
nothing = ringtap.Event("python", "nothing")
request = ringtap.Span("python", "request", user="u32")
VALUES = (7, -5, True, 0.25, 1, "aäöüxyz", [1, 2, 3], "/etc/hosts", b"\0\1\2", [-1, 5])


@ringtap.traced("python")
def work(n):
    return n + 1


class Embedded(unittest.TestCase):
    def setUp(self):
        self.host = ringtap.Host(ring_subbufs=64)
        self.addCleanup(self.host.close)
        self.host.trace()
        self.addCleanup(ringtap.detach)

    def drain(self, reader):
        records = list(reader)
        while reader.wait(0.1):
            records += reader
        return records

    def test_events_are_read_back(self):
        self.assertTrue(every.is_on and every(*VALUES))
        self.assertTrue(numbers(1, 2, c=-3))
        self.assertTrue(nothing() and ringtap.mark("a marker"))
        with request(user=7):
            self.assertEqual(work(1), 2)
        with self.host.cursor() as cursor, self.host.reader() as reader:
            seen = self.drain(cursor)
            self.assertEqual(seen, self.drain(reader))
        names = [record.event for record in seen]
        spans = ["request_begin", "work_begin", "work_end", "request_end"]
        expected = ["python:every", "python:numbers", "python:nothing", "ftrace:print"]
        self.assertEqual(names, expected + [f"python:{name}" for name in spans])
        # With a float among them, fields are shown as they are, not as symbols.
        self.assertIn("source=1 name=aäöü some={1,2,3}", seen[0].text)
        self.assertEqual(seen[1].text, "a=1 b=2 c=-3")
        self.assertTrue(all(record.pid == threading.get_native_id() for record in seen))
        stats = self.host.stats()
        self.assertEqual((stats.written, stats.read, stats.unread), (8, 8, 0))

    def test_fields(self):
        every(*VALUES)
        with self.host.cursor() as cursor:
            self.assertEqual(sum(1 for _ in self.drain_one(cursor)), 1)

    def drain_one(self, cursor):
        while cursor.wait(0.1):
            for record in cursor:
                field = cursor.field
                self.assertEqual([field(name) for name in ("a", "b", "d", "source")], [7, -5, 0.25, 1])
                # Cut between characters.
                self.assertEqual([field("name"), field("path")], ["aäöü"[:4].encode()[:7], b"/etc/hosts"])
                self.assertEqual(field("data"), b"\0\1\2")
                self.assertIsNone(field("nothing"))
                yield record

    def test_off_is_off(self):
        numbers.set_on(False)
        self.assertFalse(numbers.is_on or numbers(1, 2, 3))
        numbers.set_on(True)
        self.assertTrue(numbers(1, 2, 3))

    def test_a_reader_may_be_closed_while_another_thread_uses_it(self):
        for _ in range(20):
            cursor = self.host.cursor()
            ends = []

            def read():
                try:
                    while True:
                        numbers(1, 2, 3)
                        cursor.wait()
                        list(cursor)
                except ValueError as error:
                    ends.append(str(error))

            threads = [threading.Thread(target=read) for _ in range(3)]
            for thread in threads:
                thread.start()
            cursor.close()
            for thread in threads:
                thread.join()
            self.assertEqual(ends, ["the reader is closed"] * 3)

    def test_in_a_forked_child_its_parents_readers_are_closed(self):
        numbers(1, 2, 3)
        with self.host.cursor() as cursor, self.host.reader() as reader:
            child = os.fork()
            if child == 0:
                closed = 0
                for each in (cursor, reader):
                    try:
                        list(each)
                    except ValueError:
                        closed += 1
                    each.close()
                with self.host.cursor() as own:
                    os._exit(0 if closed == 2 and len(list(own)) == 1 else 1)
            self.assertEqual(os.waitpid(child, 0)[1], 0)
            self.assertEqual((len(list(cursor)), len(list(reader))), (1, 1))

    def test_a_wait_without_end_hears_of_signals(self):
        def interrupt(*_):
            raise KeyboardInterrupt

        before = signal.signal(signal.SIGALRM, interrupt)
        try:
            with self.host.cursor(newest=True) as cursor, self.assertRaises(KeyboardInterrupt):
                signal.setitimer(signal.ITIMER_REAL, 0.1)
                cursor.wait()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

    def test_an_array_has_no_more_elements_than_declared(self):
        with self.assertRaisesRegex(ValueError, "some is u32"):
            every(*[(1,) * 9 if name == "some" else value for name, value in zip(every.fields, VALUES)])

    def test_wrong_use_is_told(self):
        with self.assertRaises(TypeError):
            numbers(1, 2)
        with self.assertRaises(ValueError):
            ringtap.Event("python", "odd", a="u7")
        with self.assertRaisesRegex(ringtap.Error, "two words"):
            ringtap.Event("python", "two words", a="u8")
        with self.assertRaisesRegex(ValueError, "python:numbers: .* not -1"):
            numbers(-1, 2, 3)
        with self.assertRaisesRegex(ValueError, "python:every: .* not 'text'"):
            every("text", *VALUES[1:])
        with self.assertRaises(ringtap.Error) as raised:
            ringtap.Event("python", "numbers", a="u8")
        self.assertIn("python:numbers", str(raised.exception))
        with self.assertRaises(ringtap.Error):
            ringtap.open_trace("/nonexistent")

    def test_arrow(self):
        for n in range(1000):
            numbers(n, n, -n)
        every(*VALUES)
        with self.host.cursor() as cursor:
            cursor.wait(1)
            table = cursor.to_arrow("python:numbers")
        self.assertEqual(table.column("a").to_pylist(), list(range(1000)))
        self.assertEqual(table.column("c").to_pylist(), [-n for n in range(1000)])
        self.assertEqual([str(table.schema.field(name).type) for name in "abc"], ["uint64", "uint32", "int32"])
        self.assertEqual(table.column("time_ns").to_pylist(), sorted(table.column("time_ns").to_pylist()))
        table.validate(full=True)
        with self.host.cursor() as cursor:
            row = self.wait_for(cursor, "python:every")
        row.validate(full=True)
        expected = dict(zip(every.fields, VALUES), name="aäöü"[:4].encode()[:7].decode(), some=[1, 2, 3])
        expected["data"] = [0, 1, 2]
        self.assertEqual({name: row.column(name)[0].as_py() for name in every.fields}, expected)
        with self.host.reader() as reader:
            frame = reader.to_pandas()
        self.assertEqual(frame["event"].tolist()[:2], ["python:numbers"] * 2)
        self.assertEqual(frame["text"].iloc[3], "a=3 b=3 c=-3")

    def wait_for(self, cursor, event):
        """The newest are held back for some microseconds."""
        while cursor.wait(5):
            table = cursor.to_arrow(event)
            if table.num_rows:
                return table
        self.fail(f"no {event}")


class Processes(unittest.TestCase):
    def test_another_process_writes(self):
        with tempfile.TemporaryDirectory() as directory, ringtap.Host() as host:
            socket = os.path.join(directory, "host.sock")
            host.serve(socket)
            program = (
                "import ringtap, os\n"
                "tick = ringtap.Event('python', 'tick', n='u32')\n"
                "ringtap.init()\n"
                "pid = os.fork()\n"
                "for n in range(100): assert tick(n)\n"
                "if pid: os.waitpid(pid, 0)\n"
            )
            environment = dict(os.environ, RINGTAP_SOCKET=socket)
            subprocess.run([sys.executable, "-c", program], check=True, env=environment, timeout=60)
            with ringtap.Host.connect(socket) as other, other.reader() as reader:
                self.assertIn("python:tick", reader.events())
                ticks = reader.to_arrow("python:tick")
            self.assertEqual(sorted(ticks.column("n").to_pylist()), sorted(list(range(100)) * 2))
            self.assertEqual(host.stats().written, 200)


@unittest.skipUnless("RINGTAP_TRACE" in os.environ, "there is no recorded file")
class File(unittest.TestCase):
    def test_a_trace_file(self):
        path = os.environ["RINGTAP_TRACE"]
        with ringtap.open_trace(path) as reader:
            names = reader.events()
        self.assertIn("fields:two", names)
        table = ringtap.read_arrow(path, "fields:arrays")
        table.validate(full=True)
        self.assertEqual(table.column("a").to_pylist(), [[1, 2, 3000000000]])
        self.assertEqual(table.column("c").to_pylist(), [[-1, 2]])
        self.assertEqual(table.column("d").to_pylist(), ["main"])
        frame = ringtap.read_pandas(path)
        fields = frame[frame["event"].str.startswith("fields:")]
        self.assertEqual(fields["event"].nunique(), 19)
        self.assertEqual(int(frame["lost"].sum()), 0)


if __name__ == "__main__":
    unittest.main()
