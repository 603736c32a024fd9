"""A TCP link that can be cut for some sources, as a network does that has come apart: nothing is refused, nothing arrives. Or it breaks at
a word, as when what is behind ends at that moment.

`python links.py PORT` forwards a port of its own, which it prints, to 127.0.0.1:PORT, and obeys lines on its standard input:
`cut ADDRESS …` holds back whatever comes from or goes to clients that connect from these addresses; `heal` lets it go on; `trip WORD` ends
all connections, once, when a client sends that word, which does not arrive.
"""
import asyncio
import os
import subprocess
import sys
from pathlib import Path


class Link:
    """The link as its own process: what it carries must not wait for a busy test."""

    def __init__(self, behind: int):
        self.process = subprocess.Popen([sys.executable, "-I", "-S", Path(__file__), str(behind)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.port = int(self.process.stdout.readline())

    def cut(self, *sources: str) -> None:
        """From now on nothing passes between these addresses and what is behind."""
        self._say("cut", *sources)

    def heal(self) -> None:
        self._say("heal")

    def trip(self, word: str) -> None:
        """All connections end, once, instead of carrying this word of a client's."""
        self._say("trip", word)

    def _say(self, *words: str) -> None:
        print(*words, file=self.process.stdin, flush=True)
        assert self.process.stdout.readline() == "done\n", "the link is gone"

    def __enter__(self) -> "Link":
        return self

    def __exit__(self, *_) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


class Forwarder:
    def __init__(self, behind: int):
        self.behind, self.cut, self.changed = behind, set(), asyncio.Condition()
        self.word, self.open = None, set()

    async def passable(self, source: str) -> None:
        async with self.changed:
            await self.changed.wait_for(lambda: source not in self.cut)

    async def carry(self, source: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, to_server: bool) -> None:
        self.open.add(writer)
        try:
            while data := await reader.read(1 << 16):
                await self.passable(source)
                if to_server and self.word and self.word in data:
                    self.word = None
                    [one.transport.abort() for one in self.open]
                    raise ConnectionAbortedError
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        await self.passable(source)  # that one side has gone is not seen either
        self.open.discard(writer)
        writer.close()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        source = writer.get_extra_info("peername")[0]
        await self.passable(source)
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.behind)
        except OSError:
            writer.close()
            return
        await asyncio.gather(self.carry(source, reader, far_writer, True), self.carry(source, far_reader, writer, False))

    async def obey(self) -> None:
        """Until the standard input ends: whoever started it is gone then."""
        lines = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
        while words := (await lines.readline()).decode().split():
            if words[0] == "trip":
                self.word = words[1].encode()
            else:
                async with self.changed:
                    self.cut = self.cut | set(words[1:]) if words[0] == "cut" else set()
                    self.changed.notify_all()
            print("done", flush=True)


async def main(behind: int) -> None:
    forwarder = Forwarder(behind)
    server = await asyncio.start_server(forwarder.accept, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await forwarder.obey()
    os._exit(0)  # whatever is held back


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
