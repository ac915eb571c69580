# SPDX-License-Identifier: LGPL-2.1-or-later
"""The frame of a program that measures under the keeper."""

import os
import resource
import sys

import load
import measurement
import report
import stage_keeper
import stages


def main(program, arguments, run):
    """Has run(arguments, stage) run. Returns the exit status; what failed is said on stderr."""
    if arguments.build:
        os.environ["HOLDFAST_BUILD"] = arguments.build
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        stage = stage_keeper.KeeperStage()
        try:
            run(arguments, stage)
        finally:
            stage.close()
    except stages.StageUnavailable as error:
        print(f"{program}: cannot run here: {error}", file=sys.stderr)
        return report.STATUS_CANNOT_RUN
    except (load.LoadFailed, measurement.ClientFailed) as error:
        print(f"{program}: {error}", file=sys.stderr)
        return report.STATUS_FAILED
    return 0
