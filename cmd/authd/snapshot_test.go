package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"authd/cluster/state"
)

func testImage(t *testing.T) []byte {
	t.Helper()
	m, results, _ := state.Empty().Apply(7, []state.Entry{
		{At: 1_700_000_000, Actor: "test", Command: state.SetSettings{Settings: state.Settings{ClusterID: "test"}}},
		{At: 1_700_000_000, Actor: "test", Command: state.AddTenant{ID: "acme", Name: "Acme"}},
	})
	for _, r := range results {
		if r.Refusal != nil {
			t.Fatal(r.Refusal)
		}
	}
	var image bytes.Buffer
	if err := m.WriteImage(&image); err != nil {
		t.Fatal(err)
	}
	return image.Bytes()
}

func TestInspectSaysWhatMatters(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.snapshot")
	if err := os.WriteFile(path, testImage(t), 0o600); err != nil {
		t.Fatal(err)
	}
	m, err := readSnapshot(path)
	if err != nil {
		t.Fatal(err)
	}
	said := summarise(m) + "\n" + describeSnapshot(m)
	for _, want := range []string{"cluster test at index 7 (2023-11-14T22:13:20Z): 0 domains, 1 tenant", "domains: 0 live, 0 pending, 0 leaving", "keys: 0", "changes: 2, the last one has hash ", "sum: "} {
		if !strings.Contains(said, want) {
			t.Errorf("no %q in\n%s", want, said)
		}
	}
}

// A file that is cut short, flipped anywhere, or not ours is refused with the
// reason, whichever octet it is.
func TestDamagedSnapshotIsRefusedWithTheReason(t *testing.T) {
	good := testImage(t)
	dir := t.TempDir()
	read := func(content []byte) error {
		path := filepath.Join(dir, "x.snapshot")
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := readSnapshot(path)
		if err != nil && !strings.Contains(err.Error(), path) {
			t.Errorf("the error does not name the file: %v", err)
		}
		return err
	}
	if err := read(good); err != nil {
		t.Fatal(err)
	}
	for i := range good {
		if err := read(good[:i]); err == nil || !strings.Contains(err.Error(), "cut short") {
			t.Errorf("cut at %d of %d: %v", i, len(good), err)
		}
		flipped := bytes.Clone(good)
		flipped[i] ^= 0x10
		if err := read(flipped); err == nil {
			t.Errorf("flipped at %d: taken", i)
		}
	}
	if err := read([]byte("-----BEGIN CERTIFICATE-----\nMIIB")); err == nil || !strings.Contains(err.Error(), "no image") {
		t.Errorf("a foreign file: %v", err)
	}
	if err := read(append(bytes.Clone(good), 'x')); err == nil {
		t.Error("octets behind the end were taken")
	}
}
