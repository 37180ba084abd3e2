"""One member of a shard in a process of its own, through the role: python -m tests.ps.member_process FOLDER INDEX PORTS.

Four ports: two addresses, two of health. The owners' log is a file. Ends with its standard input, or as a role does when it is fenced off
(exit code 3)."""

import os
import sys
import threading
from pathlib import Path

from headrace.config import Config
from headrace.roles import ps
from tests.ps import worlds


def configured(folder, ports):
    config = Config()
    config.stack.data_dir = Path(folder)
    config.ps.addresses, config.ps.http_ports = [f"127.0.0.1:{ports[0]}"], [ports[2]]
    config.ps.standbys, config.ps.standby_http_ports = [f"127.0.0.1:{ports[1]}"], [ports[3]]
    config.ps.rows_max, config.ps.acknowledge_s, config.ps.takeover_s, config.ps.snapshot_s = 5000, 5.0, 1.0, 1.0
    return config


def main(folder, index, *ports):
    ended = threading.Event()
    log = worlds.FileLog(Path(folder) / "owners")
    stop = ps.start(configured(folder, [int(port) for port in ports]), int(index), [worlds.spec()], lambda topic, key, record: None,
                    owners_log=log, ended=lambda why: ended.set())
    print("up", flush=True)
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
    ended.wait()
    stop()
    os._exit(3)


if __name__ == "__main__":
    main(*sys.argv[1:])
