package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// clockTick is the unit of the times in /proc (USER_HZ on every architecture that Go has).
const clockTick = 10 * time.Millisecond

// processors is the processor time that the servers under measurement, which are all
// processes below this one, have taken so far. What ended takes its time with it.
func processors() time.Duration {
	type process struct {
		parent int
		taken  time.Duration
	}
	all := make(map[int]process)
	files, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // it ended
		}
		var pid int
		_, _ = fmt.Sscan(string(text), &pid)
		// The name before it, in brackets, may hold anything: proc(5).
		fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
		var p process
		var user, system int64
		_, _ = fmt.Sscan(strings.Join(append(slices.Clone(fields[1:2]), fields[11:13]...), " "), &p.parent, &user, &system)
		p.taken = time.Duration(user+system) * clockTick
		all[pid] = p
	}
	var sum time.Duration
	for pid, p := range all {
		for parent := p.parent; pid != os.Getpid() && parent != 0; parent = all[parent].parent {
			if parent == os.Getpid() {
				sum += p.taken
				break
			}
		}
	}
	return sum
}
