//go:build !lab

package main

import (
	"log/slog"
	"testing"
)

func TestReleasesHaveNoLabClockAndNoLabKeys(t *testing.T) {
	t.Setenv("AUTHD_LAB_TIME", "1,1,8000")
	t.Setenv("AUTHD_LAB_CLOCK", "/nowhere")
	t.Setenv("AUTHD_LAB_PRIMES", "/nowhere")
	if now, err := labClock(); now != nil || err != nil {
		t.Errorf("this build can have its time scaled: %v", err)
	}
	if source, err := labSource(slog.Default()); source != nil || err != nil {
		t.Errorf("this build makes keys of a lab: %v", err)
	}
}
