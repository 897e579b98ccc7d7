"""A side of a bench: commands come as JSON lines on stdin, answers leave as JSON lines on stdout."""

import json
import resource
import sys
import time


def status(field):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith(field + ":"))


def measured(work):
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    before = resource.getrusage(resource.RUSAGE_SELF)
    cpu, start = time.process_time(), time.perf_counter()
    loss = work()
    ms, cpu_ms = 1e3 * (time.perf_counter() - start), 1e3 * (time.process_time() - cpu)
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before.ru_minflt
    answer = {"ms": ms, "cpuMs": cpu_ms, "faults": faults, "peakMiB": status("VmHWM")}
    return answer if loss is None else {**answer, "loss": loss}


def serve(answer):
    """Answers each command with answer(command)."""
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)
