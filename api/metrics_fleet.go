package api

import (
	"github.com/prometheus/client_golang/prometheus"

	"authd/cluster/state"
)

// fleet shows what is under way for many domains. All of it is read from counts that
// the machine keeps, so that what a scrape costs does not follow the domains.
type fleet struct {
	rotations, left, waiting, refilling, oldest *prometheus.Desc
	reseal, pending, pendingOldest              *prometheus.Desc
}

func newFleet() fleet {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("authd_"+name, help, labels, nil)
	}
	return fleet{
		rotations: desc("rotations", "Rotations of many domains that are under way.", "kind", "state"),
		left:      desc("rotation_domains_left", "Domains of rotations under way that are still before them: not begun, or not taken back.", "kind", "state"),
		waiting:   desc("rotation_domains_waiting", "Domains of rotations that sign with the old key until their next one is ready.", "kind"),
		refilling: desc("rotation_domains_refilling", "Domains of rotations that switched and have no standby yet.", "kind"),
		oldest:    desc("rotations_oldest_seconds", "How long the rotation has been under way that began first; 0 where none is.", "kind"),
		reseal:    desc("keys_to_reseal", "Private halves that are not sealed under the chosen key-encryption key yet."),
		pending:   desc("domains_pending", "Claims that wait for their proof."),
		pendingOldest: desc("domains_pending_oldest_seconds",
			"How long the claim has waited for its proof that waits longest; 0 where none does."),
	}
}

func (f *fleet) describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{f.rotations, f.left, f.waiting, f.refilling, f.oldest, f.reseal, f.pending, f.pendingOldest} {
		to <- d
	}
}

// rotationKinds are the kinds of rotations, as a label has them.
var rotationKinds = [...]string{"planned", "drill", "emergency"}

func rotationKind(r *state.Rotation) int {
	switch {
	case r.Drill:
		return 1
	case r.Emergency:
		return 2
	}
	return 0
}

// leftOf is how many domains a rotation has before it, on the way that it goes.
func leftOf(r *state.Rotation) uint64 {
	if r.Back && !r.Walked {
		return uint64(max(r.Begun, r.Returned+r.Kept) - r.Returned - r.Kept)
	}
	return uint64(r.Outstanding())
}

// collect shows the machine at a time. Every series is there from the start, so that
// a first rotation is seen as a change.
func (f *fleet) collect(to chan<- prometheus.Metric, m state.Machine, now int64) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	age := func(since int64) float64 {
		if since == 0 {
			return 0
		}
		return float64(max(0, now-since))
	}
	type count struct{ rotations, left uint64 }
	var open [len(rotationKinds)][2]count // running, paused
	var waiting, refilling [len(rotationKinds)]uint64
	var since [len(rotationKinds)]int64
	for r := range m.Rotations() {
		kind := rotationKind(r)
		waiting[kind] += uint64(r.Waiting) // also where it was aborted: what it began goes on
		refilling[kind] += uint64(r.Refilling)
		if r.Ended() {
			continue
		}
		at := &open[kind][0]
		if r.State == state.RotationPaused {
			at = &open[kind][1]
		}
		at.rotations++
		at.left += leftOf(r)
		if since[kind] == 0 || r.StartedAt < since[kind] {
			since[kind] = r.StartedAt
		}
	}
	for kind, name := range rotationKinds {
		for i, of := range []state.RotationState{state.RotationRunning, state.RotationPaused} {
			gauge(f.rotations, float64(open[kind][i].rotations), name, of.String())
			gauge(f.left, float64(open[kind][i].left), name, of.String())
		}
		gauge(f.waiting, float64(waiting[kind]), name)
		gauge(f.refilling, float64(refilling[kind]), name)
		gauge(f.oldest, age(since[kind]), name)
	}
	gauge(f.reseal, float64(m.ToRewrap()))
	gauge(f.pending, float64(m.PendingCount()))
	oldest := int64(0)
	for w := range m.Pending(0) {
		oldest = w.Since
		break
	}
	gauge(f.pendingOldest, age(oldest))
}
