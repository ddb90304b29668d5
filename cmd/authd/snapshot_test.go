package main

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

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

// A snapshot has gigabytes, so what bounds other calls does not bound it; and a restore
// is asked for by who means it.
func TestSnapshotsTakeTheirTimeAndARestoreIsMeant(t *testing.T) {
	image := testImage(t)
	const soon = 50 * time.Millisecond
	node := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		time.Sleep(2 * soon)
		w.Write(image)
	}))
	defer node.Close()
	said := &bytes.Buffer{}
	talk := func(answer string) *session {
		c, err := newClient(node.URL, "", "")
		if err != nil {
			t.Fatal(err)
		}
		c.http.Timeout = soon
		return &session{app: &app{ctx: t.Context(), stdin: strings.NewReader(answer), stdout: said, stderr: said}, client: c}
	}
	path := filepath.Join(t.TempDir(), "x.snapshot")
	if err := (&snapshotSaveCmd{File: path}).Run(talk("")); err != nil {
		t.Fatal(err)
	}
	restore := &snapshotRestoreCmd{File: path}
	if err := restore.Run(talk("")); err != nil {
		t.Fatal(err)
	}
	if err := restore.agreed(talk("y\n"), "something"); err == nil || !strings.Contains(err.Error(), "nothing was changed") {
		t.Errorf("%v", err)
	}
	if err := restore.agreed(talk("yes\n"), "something"); err != nil || !strings.Contains(said.String(), "It holds something.\nAll that the cluster at "+strings.TrimPrefix(node.URL, "http://")) {
		t.Errorf("%v: %s", err, said)
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
