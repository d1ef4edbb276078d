"""From the JSON of a benchmark run to the table in the README.

python bench/report.py run.json --readme README.md
"""

import argparse
import json
from collections import defaultdict
from pathlib import Path

BEGIN, END = "<!-- benchmarks: written by bench/report.py -->", "<!-- end of benchmarks -->"
OURS = "fastrsx"


def duration(seconds):
    """Three digits and a unit."""
    for factor, unit in ((1, "s"), (1e3, "ms")):
        if seconds * factor >= 1:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"


def rows_of(run):
    """{(op, n, d): {who: (median, extra_info)}} in the order of the run."""
    table = defaultdict(dict)
    for bench in run["benchmarks"]:
        info = bench["extra_info"]
        table[info["op"], info["n"], info["d"]][info["who"]] = (bench["stats"]["median"], info)
    return table


def speed(info):
    """GF/s where there are flops, else GB/s where there are bytes, and the part of the roofline."""
    if "GFs" in info:
        return f"{info['GFs']:.0f} GF/s, {info['roofline']:.0%} of roofline"
    if "GBs" in info:
        return f"{info['GBs']:.0f} GB/s, {info['roofline']:.0%} of roofline"
    return ""


def table(run):
    """The Markdown table of the rows that have one of ours."""
    rows = rows_of(run)
    lines = ["| what | n x d | fastrsx | speed | against | its time | ratio |", "|---|---|---|---|---|---|---|"]
    for (op, n, d), peers in rows.items():
        if OURS not in peers:
            continue
        ours, info = peers[OURS]
        others = {who: median for who, (median, _) in peers.items() if who != OURS}
        if not others and "GBs" in info and "GFs" not in info:  # what only reads A is held against one read of it
            others = {"one read of A": rows["read A", n, d]["NumPy"][0]} if ("read A", n, d) in rows else {}
        for who, median in others.items() or [("", None)]:
            against = (who, duration(median), f"{median / ours:.2f}x") if median else ("", "", "")
            lines.append(f"| {op} | {n} x {d} | {duration(ours)} | {speed(info)} | {' | '.join(against)} |")
    return "\n".join(lines)


def caption(run):
    """What was measured where."""
    info = run["benchmarks"][0]["extra_info"]
    versions = ", ".join(f"{name} {version}" for name, version in info["versions"].items())
    return (
        f"Medians of one run on {run['datetime'][:10]}: {info['cpu']}, {info['threads']} threads, {versions}; one read of A at "
        f"{info['read_GBs']:.0f} GB/s and dgemm at {info['dgemm_GFs']:.0f} GF/s in the same session. The ratio is the other's time over ours."
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("json", type=Path)
    parser.add_argument("--readme", type=Path, help="replace the table between the markers of this file (default: print it)")
    args = parser.parse_args()
    run = json.loads(args.json.read_text(encoding="utf-8"))
    text = f"{table(run)}\n\n{caption(run)}"
    if args.readme is None:
        print(text)
        return
    old = args.readme.read_text(encoding="utf-8")
    before, rest = old.split(BEGIN)
    _, after = rest.split(END)
    args.readme.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
