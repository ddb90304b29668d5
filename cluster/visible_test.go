package cluster

import (
	"fmt"
	"slices"
	"syscall"
	"testing"
	"time"

	"authd/cluster/state"
)

// BenchmarkVisibleOnAllThree measures how long a write takes from its proposal to
// being answered by all three nodes, joined by TLS over loopback, with fsync, and
// what the nodes cost while nothing happens:
//
//	go test ./cluster -run '^$' -bench Visible -benchtime 300x
//
// Figures: bench/RESULTS.md, "From commit to visible".
func BenchmarkVisibleOnAllThree(b *testing.B) {
	for _, s := range []struct {
		name    string
		commit  time.Duration // the library's CommitTimeout
		barrier bool          // a barrier entry follows each write
		tell    bool          // the transport tells the followers, as in production
	}{
		{"library-50ms", 50 * time.Millisecond, false, false},
		{"library-1ms", time.Millisecond, false, false},
		{"barrier-entry", 50 * time.Millisecond, true, false},
		{"told-by-transport", 50 * time.Millisecond, false, true},
	} {
		b.Run(s.name, func(b *testing.B) {
			c := newTestCluster(b, 3)
			c.tuning = defaultTuning()
			c.tuning.commit = s.commit
			c.tuning.patience = 20 * time.Second
			c.startAll()
			leader := c.leader()
			if !s.tell {
				leader.fsm.committed = func(uint64) {}
			}
			write(b, leader, "first")
			var took []time.Duration
			for i := 0; b.Loop(); i++ {
				b.StopTimer()
				time.Sleep(20 * time.Millisecond) // so that each write meets an idle cluster
				b.StartTimer()
				began := time.Now()
				_, index, err := leader.Propose(b.Context(), Actor{ID: "test"}, state.AddTenant{ID: fmt.Sprintf("t%d", i), Name: "x"})
				must(b, err)
				if s.barrier {
					leader.raft().Barrier(0)
				}
				c.waitAll(index)
				took = append(took, time.Since(began))
			}
			b.StopTimer()
			slices.Sort(took)
			b.ReportMetric(milliseconds(took[len(took)/2]), "p50-ms")
			b.ReportMetric(milliseconds(took[len(took)*99/100]), "p99-ms")
			b.ReportMetric(idleShare(5*time.Second)/3, "idle-%core/node")
			b.ReportMetric(0, "ns/op")
		})
	}
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// idleShare is how many percent of a core this process uses while it waits.
func idleShare(d time.Duration) float64 {
	before, began := processorTime(), time.Now()
	time.Sleep(d)
	return 100 * float64(processorTime()-before) / float64(time.Since(began))
}

// processorTime is what this process has used.
func processorTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkGroupCommit measures writes a second with so many writers at once.
func BenchmarkGroupCommit(b *testing.B) {
	for _, writers := range []int{1, 8, 64} {
		b.Run(fmt.Sprintf("writers-%d", writers), func(b *testing.B) {
			c := newTestCluster(b, 3)
			c.tuning = defaultTuning()
			c.tuning.patience = 20 * time.Second
			c.startAll()
			leader := c.leader()
			write(b, leader, "first")
			work := make(chan int)
			done := make(chan struct{})
			for range writers {
				go func() {
					defer func() { done <- struct{}{} }()
					for i := range work {
						_, _, err := leader.Propose(b.Context(), Actor{ID: "test"}, state.AddTenant{ID: fmt.Sprintf("t%d", i), Name: "x"})
						if err != nil {
							b.Error(err)
						}
					}
				}()
			}
			for i := 0; b.Loop(); i++ {
				work <- i
			}
			close(work)
			for range writers {
				<-done
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "writes/s")
		})
	}
}
