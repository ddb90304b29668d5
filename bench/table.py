#!/usr/bin/env python3
"""Print the results of bench/run as Markdown: medians and min-max over the rounds."""
import collections
import statistics
import sys

load, after = {}, {}
runs = collections.defaultdict(lambda: collections.defaultdict(list))
for line in open(sys.argv[1]):
    kind, server, *rest = line.rstrip("\n").split("\t")
    if kind == "load":
        load[server] = rest
    elif kind == "after":
        after[server] = rest[0]
    elif len(rest) > 1 and rest[1]:  # not the round that was interrupted
        values = (p.split("=") for p in rest[1].split())
        runs[kind, rest[0]][server].append({k: float(v.rstrip("%")) for k, v in values})


def median(rounds, key):
    return statistics.median(r[key] for r in rounds)


print("\n| server | load s | MiB (PSS) | MiB after the run |\n|---|---|---|---|")
for server, (ms, mib) in load.items():
    print(f"| {server} | {int(ms) / 1000:.1f} | {mib} | {after.get(server, '')} |")
for (kind, workload), servers in runs.items():
    most = kind == "most"
    print(f"\n{workload}{'' if most else ', fixed rate'}\n")
    print("| server | queries/s | min-max | µs/query | min-max | of it kernel | authd to it, q/s | authd to it, µs | of the best rounds "
          "| server CPU % | generator CPU % | p50 µs | p99 µs | wrong | lost | octets |")
    print("|---" * 16 + "|")
    ours = servers.get("authd")
    for server, r in sorted(servers.items(), key=lambda x: -median(x[1], "qps") if most else median(x[1], "us_per_q")):
        rate, cost = [x["qps"] for x in r], [x["us_per_q"] for x in r]
        ratio = ("", "", "")
        if ours and server != "authd" and median(r, "qps") > 0:
            ratio = (f"{median(ours, 'qps') / median(r, 'qps'):.2f}", f"{median(ours, 'us_per_q') / median(r, 'us_per_q'):.2f}",
                     f"{min(x['us_per_q'] for x in ours) / min(cost):.2f}")
        print(f"| {server} | {median(r, 'qps'):,.0f} | {min(rate):,.0f}-{max(rate):,.0f} | {median(r, 'us_per_q'):.2f} "
              f"| {min(cost):.2f}-{max(cost):.2f} | {median(r, 'sys_per_q'):.2f} | {ratio[0]} | {ratio[1]} | {ratio[2]} "
              f"| {median(r, 'srv_cpu'):.0f} | {median(r, 'own_cpu'):.0f} | {median(r, 'p50_us'):.0f} | {median(r, 'p99_us'):.0f} "
              f"| {sum(x['bad'] for x in r):.0f} | {sum(x['lost'] for x in r):.0f} | {median(r, 'size'):.0f} |")
