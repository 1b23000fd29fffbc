# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The API alone: python -m lab.aws.main --port PORT. It says `ready` when it serves, and ends on SIGTERM or ^C."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading

from lab.aws import OPERATOR_ACCESS_KEY, OPERATOR_SECRET_KEY, Aws, AwsSettings


def parse(argv: list[str]) -> argparse.Namespace:
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or AwsSettings.region
    parser = argparse.ArgumentParser(prog="lab/ec2", description="EC2, IAM and STS on 127.0.0.1, without delays.")
    parser.add_argument("--port", type=int, required=True, help="TCP port on 127.0.0.1; 0 takes a free one")
    parser.add_argument("--region", default=region, help="AWS region (default: %(default)s)")
    return parser.parse_args(argv)


def main(argv: list[str]) -> int:
    arguments = parse(argv)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    settings = AwsSettings(region=arguments.region, zone=arguments.region + "a")
    with Aws(settings) as aws:
        try:
            host, port = aws.listen("127.0.0.1", arguments.port, control=True)
        except OSError as error:
            print(f"lab/ec2: {error.strerror or error}", file=sys.stderr)
            return 1
        for line in (
            f"AWS_ENDPOINT_URL=http://{host}:{port}",
            f"AWS_ACCESS_KEY_ID={OPERATOR_ACCESS_KEY}",
            f"AWS_SECRET_ACCESS_KEY={OPERATOR_SECRET_KEY}",
            f"AWS_REGION={arguments.region}",
            f"AWS_DEFAULT_REGION={arguments.region}",
        ):
            print(f"export {line}", file=sys.stderr)
        print("ready", flush=True)
        stop.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
