package keys

import (
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestKeeperSeesVersionsAddedToItsFile, without a restart, and seals under the one
// it is told to.
func TestKeeperSeesVersionsAddedToItsFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kek")
	if err := NewKeeperFile(path, rand.Reader); err != nil {
		t.Fatal(err)
	}
	keeper, err := OpenKeeper(path)
	if err != nil {
		t.Fatal(err)
	}
	other, err := OpenKeeper(path) // of a node that nobody asks what it holds
	if err != nil {
		t.Fatal(err)
	}
	b := Binding{"token", "s1", 1}
	first, err := keeper.Seal(rand.Reader, b, []byte("half"))
	if err != nil {
		t.Fatal(err)
	}
	version, err := AddKeeperVersion(path)
	if err != nil || version != 2 {
		t.Fatalf("version %d, %v", version, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if got := keeper.Versions(); !slices.Equal(got, []uint16{1, 2}) {
		t.Errorf("it holds %v", got)
	}
	second, err := keeper.SealUnder(rand.Reader, 2, b, []byte("half"))
	if err != nil || SealedVersion(second) != 2 || SealedVersion(first) != 1 {
		t.Fatalf("%v", err)
	}
	for _, sealed := range [][]byte{first, second} {
		if compact, err := other.Open(b, sealed); err != nil || string(compact) != "half" {
			t.Errorf("%q, %v", compact, err)
		}
	}
	if _, err := keeper.SealUnder(rand.Reader, 3, b, []byte("half")); err == nil || !strings.Contains(err.Error(), "version 3") {
		t.Errorf("%v", err)
	}
	// A file that became bad changes nothing for a node that runs.
	if err := os.WriteFile(path, []byte("garbage\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := keeper.Versions(); !slices.Equal(got, []uint16{1, 2}) {
		t.Errorf("with a bad file it holds %v", got)
	}
	if _, err := AddKeeperVersion(path); err == nil {
		t.Error("a version was added to a bad file")
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		if text := fmt.Sprintf(verb, keeper); !strings.HasPrefix(text, "keeper of key-encryption key version") {
			t.Errorf("%s prints %s", verb, text)
		}
	}
}

// A credentials directory speaks for what is in it, and for nothing else.
func TestCredentialsDirectorySpeaksForItsOwnFilesAlone(t *testing.T) {
	path := writeKeeper(t, wrapKeyLine("1", 'a'), 0o440)
	t.Setenv("CREDENTIALS_DIRECTORY", t.TempDir())
	if _, err := OpenKeeper(path); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a file outside that its group may read: %v", err)
	}
}

// A file whose last line an editor left open gets its version on a line of its own.
func TestVersionIsAddedBehindALineWithoutAnEnd(t *testing.T) {
	path := writeKeeper(t, strings.TrimSuffix(wrapKeyLine("7", 'a'), "\n"), 0o600)
	version, err := AddKeeperVersion(path)
	if err != nil || version != 8 {
		t.Fatalf("version %d, %v", version, err)
	}
	keeper, err := OpenKeeper(path)
	if err != nil {
		t.Fatal(err)
	}
	if sealed, err := keeper.Seal(rand.Reader, Binding{"token", "s1", 1}, []byte("half")); err != nil || SealedVersion(sealed) != 8 || !slices.Equal(keeper.Versions(), []uint16{7, 8}) {
		t.Errorf("%v, %v", keeper.Versions(), err)
	}
	if text, err := os.ReadFile(path); err != nil || strings.Count(string(text), "\n") != 2 {
		t.Errorf("%d lines, %v", strings.Count(string(text), "\n"), err)
	}
}
