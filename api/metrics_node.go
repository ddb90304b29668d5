package api

import (
	"github.com/prometheus/client_golang/prometheus"

	"authd/cluster"
)

// nodeFigure is a metric of one of the node's mechanisms.
type nodeFigure struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	read func(cluster.Figures) float64
}

func nodeFigures() []nodeFigure {
	gauge := func(name, help string, read func(cluster.Figures) float64) nodeFigure {
		return nodeFigure{prometheus.NewDesc("authd_"+name, help, nil, nil), prometheus.GaugeValue, read}
	}
	total := func(name, help string, read func(cluster.Figures) float64) nodeFigure {
		return nodeFigure{prometheus.NewDesc("authd_"+name, help, nil, nil), prometheus.CounterValue, read}
	}
	proofs := func(result string, read func(cluster.ProofCounts) uint64) nodeFigure {
		return nodeFigure{prometheus.NewDesc("authd_proof_checks_total", "Looks at the parents of pending domains and at the CNAMEs of contested ones, by what they came to; on the leader.", nil, prometheus.Labels{"result": result}),
			prometheus.CounterValue, func(f cluster.Figures) float64 { return float64(read(f.Proofs)) }}
	}
	count := func(verdict string, read func(cluster.Figures) float64) nodeFigure {
		return nodeFigure{prometheus.NewDesc("authd_state_checks_total", "Comparisons of the nodes' states, by what this node found.", nil, prometheus.Labels{"verdict": verdict}), prometheus.CounterValue, read}
	}
	yes := func(b bool) float64 {
		if b {
			return 1
		}
		return 0
	}
	return []nodeFigure{
		gauge("raft_term", "Raft's term.", func(f cluster.Figures) float64 { return float64(f.Term) }),
		gauge("raft_last_index", "Last entry in this node's log.", func(f cluster.Figures) float64 { return float64(f.LastIndex) }),
		gauge("raft_commit_index", "Last entry known to be committed.", func(f cluster.Figures) float64 { return float64(f.CommitIndex) }),
		gauge("raft_candidate", "1 while this node stands for election.", func(f cluster.Figures) float64 { return yes(f.State == "Candidate") }),
		gauge("raft_log_stalled", "1 while the disk holds up an append to the log, or what is applied.", func(f cluster.Figures) float64 { return yes(f.Stalled) }),
		gauge("fenced", "1 where this node is fenced off.", func(f cluster.Figures) float64 { return yes(f.Fenced) }),
		gauge("mark_behind_entries", "Entries applied that the durable mark does not cover yet.", func(f cluster.Figures) float64 { return float64(f.MarkBehind) }),
		gauge("log_tail_entries", "Entries behind the last snapshot, which a start replays.", func(f cluster.Figures) float64 { return float64(f.TailEntries) }),
		gauge("log_tail_bytes", "Their size.", func(f cluster.Figures) float64 { return float64(f.TailOctets) }),
		gauge("proposals_waiting", "Writes that wait for their turn at this leader.", func(f cluster.Figures) float64 { return float64(f.Waiting) }),
		gauge("proposals_in_flight", "Log entries of this leader that are not committed yet.", func(f cluster.Figures) float64 { return float64(f.UnderWay) }),
		gauge("disk_free_bytes", "Free space for the data directory.", func(f cluster.Figures) float64 { return float64(f.Disk.Free) }),
		gauge("disk_total_bytes", "Size of its file system.", func(f cluster.Figures) float64 { return float64(f.Disk.Total) }),
		gauge("disk_reserve_bytes", "Free space below which the node gives up leadership.", func(f cluster.Figures) float64 { return float64(f.Disk.Reserve) }),
		gauge("disk_short", "1 while less than the reserve is free.", func(f cluster.Figures) float64 { return yes(f.Disk.Short) }),
		gauge("state_check_index", "Place in the log of the last comparison of states.", func(f cluster.Figures) float64 { return float64(f.Check.Index) }),
		gauge("state_check_alarm", "1 while nodes differ, no majority agrees, and writes are stopped.", func(f cluster.Figures) float64 { return yes(f.Check.Alarm) }),
		count("agreed", func(f cluster.Figures) float64 { return float64(f.Check.Agreed) }),
		count("diverged", func(f cluster.Figures) float64 { return float64(f.Check.Diverged) }),
		count("split", func(f cluster.Figures) float64 { return float64(f.Check.Split) }),
		total("state_recounts_total", "How often this node counted its own state anew.", func(f cluster.Figures) float64 { return float64(f.Check.Recounts) }),
		total("state_corrupt_total", "Counts that found this node's memory not to be what was written.", func(f cluster.Figures) float64 { return float64(f.Check.Corrupt) }),
		count("unclear", func(f cluster.Figures) float64 { return float64(f.Check.Unclear) }),
		gauge("keys_ready", "RSA keys that can be taken without waiting.", func(f cluster.Figures) float64 { return float64(f.Keys.Ready) }),
		total("keys_made_total", "RSA keys that this node's mill made.", func(f cluster.Figures) float64 { return float64(f.Keys.Made) }),
		total("keys_given_total", "RSA keys that this node gave to others.", func(f cluster.Figures) float64 { return float64(f.Keys.Given) }),
		total("keys_taken_total", "RSA keys that this node took of others.", func(f cluster.Figures) float64 { return float64(f.Keys.Taken) }),
		total("keys_refused_total", "Times that a key of another node was refused: it did not match, was weak, or had been given before.", func(f cluster.Figures) float64 { return float64(f.Keys.Refused) }),
		gauge("cluster_epoch", "How often the cluster was recovered from a single node.", func(f cluster.Figures) float64 { return float64(f.Epoch) }),
		total("node_link_refused_total", "Connections and messages of other nodes that were turned away.", func(f cluster.Figures) float64 { return float64(f.LinkRefused) }),
		total("log_damaged_total", "Reads of damaged log entries that the snapshot covers.", func(f cluster.Figures) float64 { return float64(f.LogDamaged) }),
		proofs("proven", func(c cluster.ProofCounts) uint64 { return c.Proven }),
		proofs("found", func(c cluster.ProofCounts) uint64 { return c.Found }),
		proofs("missing", func(c cluster.ProofCounts) uint64 { return c.Missing }),
		proofs("unasked", func(c cluster.ProofCounts) uint64 { return c.Unasked }),
		proofs("refused", func(c cluster.ProofCounts) uint64 { return c.Refused }),
		gauge("clock_ahead_seconds", "How far this node's clock is ahead of the cluster's time, which moves with writes.", func(f cluster.Figures) float64 { return f.ClockAhead.Seconds() }),
	}
}
