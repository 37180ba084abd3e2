"""An S3 server for the tests, in a process of its own on 127.0.0.1: moto's, which checks signatures and keeps to If-None-Match.

moto looks whether an object is there and then puts it, in as many threads as there are requests: here they are answered one at a time, so
that of all who create an object one succeeds, as on S3 itself. SIGUSR1 has it refuse connections, SIGUSR2 listen again; it forgets nothing.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

TOP = Path(__file__).parents[1]
REGION = "us-east-1"
RIGHTS = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}


class S3Server:
    """`environment`: what a process needs to reach it as the user who owns its buckets."""

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        unsigned = {"INITIAL_NO_AUTH_ACTION_COUNT": "3"}  # of IAM, which make the user
        self._process = subprocess.Popen([sys.executable, "-m", "tests.s3_server", str(self.port)], cwd=TOP, env=os.environ | unsigned)
        self._until(True)
        iam = self._client("iam", "nobody", "nothing")
        iam.create_user(UserName="lake")
        iam.put_user_policy(UserName="lake", PolicyName="all", PolicyDocument=json.dumps(RIGHTS))
        key = iam.create_access_key(UserName="lake")["AccessKey"]
        self.environment = {"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"],
                            "AWS_ENDPOINT_URL": self.url, "AWS_REGION": REGION, "AWS_EC2_METADATA_DISABLED": "true"}
        self._s3 = self._client("s3", key["AccessKeyId"], key["SecretAccessKey"])
        self._buckets = 0

    def bucket(self) -> str:
        """A new one, empty."""
        self._buckets += 1
        self._s3.create_bucket(Bucket=f"lake-{self._buckets}")
        return f"lake-{self._buckets}"

    @contextmanager
    def away(self) -> Iterator[None]:
        """It refuses connections."""
        self._process.send_signal(signal.SIGUSR1)
        self._until(False)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGUSR2)
            self._until(True)

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """It takes connections and answers nothing."""
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        self._process.kill()
        self._process.wait(10)

    def _until(self, there: bool, deadline_s: float = 60.0) -> None:
        ends = time.monotonic() + deadline_s
        while self._listens() != there:
            assert self._process.poll() is None and time.monotonic() < ends, f"the S3 server is {'not' if there else 'still'} there"
            time.sleep(0.02)

    def _listens(self) -> bool:
        with socket.socket() as tried:
            tried.settimeout(1.0)
            return tried.connect_ex(("127.0.0.1", self.port)) == 0

    def _client(self, service: str, key: str, secret: str) -> Any:
        import boto3

        return boto3.client(service, endpoint_url=self.url, region_name=REGION, aws_access_key_id=key, aws_secret_access_key=secret)


def main(port: int) -> None:
    import logging
    import threading

    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import BaseWSGIServer, make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    moto, one = DomainDispatcherApplication(create_backend_app), threading.Lock()

    def answer(*request: Any) -> Any:
        with one:
            return list(moto(*request))

    server: list[BaseWSGIServer] = []

    def listen(*_: object) -> None:
        server.append(make_server("127.0.0.1", port, answer, threaded=True))
        threading.Thread(target=server[-1].serve_forever, daemon=True).start()

    def refuse(*_: object) -> None:
        server[-1].shutdown()
        server.pop().server_close()

    signal.signal(signal.SIGUSR2, listen)
    signal.signal(signal.SIGUSR1, refuse)
    listen()
    parent = os.getppid()
    while os.getppid() == parent:  # it goes with the tests, however they end
        time.sleep(0.5)


if __name__ == "__main__":
    main(int(sys.argv[1]))
