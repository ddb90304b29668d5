package keys

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func memoryKeeperForTest(t *testing.T) Keeper {
	t.Helper()
	var key [wrapKeySize]byte
	if _, err := rand.Read(key[:]); err != nil {
		t.Fatal(err)
	}
	return NewMemoryKeeper(key)
}

func TestSealedHalfOpensForItsKeyAlone(t *testing.T) {
	keeper := memoryKeeperForTest(t)
	binding := Binding{Token: "abcdefghijklmnopqrstuvwxyz", Selector: "2611-abcdef", KeyID: 7}
	compact := []byte("one prime, the rest follows")
	sealed, err := keeper.Seal(rand.Reader, binding, compact)
	if err != nil {
		t.Fatal(err)
	}
	if len(sealed) != len(compact)+SealedOverhead {
		t.Errorf("sealed to %d octets, want %d", len(sealed), len(compact)+SealedOverhead)
	}
	if bytes.Contains(sealed, compact[:8]) {
		t.Error("the private half is in the sealed one")
	}
	got, err := keeper.Open(binding, sealed)
	if err != nil || !bytes.Equal(got, compact) {
		t.Fatalf("opened to %q, %v", got, err)
	}
	for name, other := range map[string]Binding{
		"token":           {"bbcdefghijklmnopqrstuvwxyz", binding.Selector, 7},
		"selector":        {binding.Token, "2611-abcdeg", 7},
		"key ID":          {binding.Token, binding.Selector, 8},
		"border of texts": {binding.Token + "2", "611-abcdef", 7},
		"no binding":      {},
	} {
		if _, err := keeper.Open(other, sealed); err == nil {
			t.Errorf("it opens for another %s", name)
		}
	}
	for i := range sealed {
		altered := bytes.Clone(sealed)
		altered[i] ^= 1
		if _, err := keeper.Open(binding, altered); err == nil {
			t.Errorf("it opens with octet %d altered", i)
		}
	}
	for length := range SealedOverhead + 1 {
		if _, err := keeper.Open(binding, sealed[:length]); err == nil {
			t.Errorf("it opens when cut to %d octets", length)
		}
	}
	if _, err := memoryKeeperForTest(t).Open(binding, sealed); err == nil {
		t.Error("it opens under another key-encryption key")
	}
}

func TestEverySealHasAFreshNonce(t *testing.T) {
	keeper := memoryKeeperForTest(t)
	seen := map[string]bool{}
	for range 100 {
		sealed, err := keeper.Seal(rand.Reader, Binding{}, []byte("half"))
		if err != nil {
			t.Fatal(err)
		}
		seen[string(sealed[versionSize:versionSize+nonceSize])] = true
	}
	if len(seen) != 100 {
		t.Errorf("%d nonces in 100 seals", len(seen))
	}
	if _, err := keeper.Seal(strings.NewReader("short"), Binding{}, []byte("half")); err == nil {
		t.Error("sealed without a whole nonce")
	}
	if _, err := keeper.Seal(rand.Reader, Binding{}, nil); err == nil {
		t.Error("sealed nothing")
	}
}

func writeKeeper(t *testing.T, text string, mode fs.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kek")
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil { // whatever the umask
		t.Fatal(err)
	}
	return path
}

func wrapKeyLine(version string, fill byte) string {
	return version + " " + base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{fill}, wrapKeySize)) + "\n"
}

func TestKeeperFileSealsUnderItsLastVersionAndOpensAll(t *testing.T) {
	first, err := OpenKeeper(writeKeeper(t, wrapKeyLine("1", 'a'), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	both, err := OpenKeeper(writeKeeper(t, "# spring\n"+wrapKeyLine("1", 'a')+"\n  "+wrapKeyLine("2", 'b'), 0o400))
	if err != nil {
		t.Fatal(err)
	}
	old, err := first.Seal(rand.Reader, Binding{KeyID: 1}, []byte("half"))
	if err != nil {
		t.Fatal(err)
	}
	recent, err := both.Seal(rand.Reader, Binding{KeyID: 1}, []byte("half"))
	if err != nil {
		t.Fatal(err)
	}
	for _, sealed := range [][]byte{old, recent} {
		if got, err := both.Open(Binding{KeyID: 1}, sealed); err != nil || string(got) != "half" {
			t.Errorf("opened to %q, %v", got, err)
		}
	}
	if _, err := first.Open(Binding{KeyID: 1}, recent); err == nil || !strings.Contains(err.Error(), "version 2, which this node does not hold") {
		t.Errorf("opening under an older keeper: %v", err)
	}
	// The same key under another version is another associated data.
	renamed, err := OpenKeeper(writeKeeper(t, wrapKeyLine("2", 'a'), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	old[1] = 2
	if _, err := renamed.Open(Binding{KeyID: 1}, old); err == nil {
		t.Error("a sealed half opens under a version that was changed")
	}
}

func TestKeeperFileIsRefused(t *testing.T) {
	good := wrapKeyLine("1", 'a')
	for name, test := range map[string]struct {
		text string
		mode fs.FileMode
		want string
	}{
		"group may read":    {good, 0o640, "has mode 0640"},
		"others may read":   {good, 0o604, "has mode 0604"},
		"others may write":  {good, 0o602, "has mode 0602"},
		"empty":             {"", 0o600, "no key"},
		"notes only":        {"# nothing\n", 0o600, "no key"},
		"no version":        {strings.Fields(good)[1], 0o600, "line 1: 1 fields"},
		"version 0":         {wrapKeyLine("0", 'a'), 0o600, "line 1: version"},
		"version too large": {wrapKeyLine("65536", 'a'), 0o600, "line 1: version"},
		"version twice":     {good + good, 0o600, "line 2: version 1 twice"},
		"not base64":        {"1 !!!!\n", 0o600, "not base64"},
		"short key":         {"1 AAAA\n", 0o600, "has 3 octets, want 32"},
		"three fields":      {strings.TrimSpace(good) + " more\n", 0o600, "3 fields"},
		"oversize":          {strings.Repeat("#\n", maxKeeperFile), 0o600, "more than 65536 octets"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := OpenKeeper(writeKeeper(t, test.text, test.mode))
			if err == nil {
				t.Fatal("it was opened")
			}
			if !strings.Contains(err.Error(), test.want) {
				t.Errorf("refused with %q, want %q", err, test.want)
			}
			if strings.Contains(err.Error(), strings.Fields(good)[1][:10]) {
				t.Errorf("the error quotes the key: %v", err)
			}
		})
	}
	if _, err := OpenKeeper(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("a file that is not there was opened")
	}
	if _, err := OpenKeeper(t.TempDir()); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("a directory: %v", err)
	}
}

func TestSystemdCredentialMayShowItsGroup(t *testing.T) {
	path := writeKeeper(t, wrapKeyLine("1", 'a'), 0o440)
	if _, err := OpenKeeper(path); err == nil {
		t.Fatal("an ordinary file that its group may read was opened")
	}
	t.Setenv("CREDENTIALS_DIRECTORY", filepath.Dir(path))
	if _, err := OpenKeeper(path); err != nil {
		t.Error(err)
	}
	for _, mode := range []fs.FileMode{0o444, 0o460} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenKeeper(path); err == nil {
			t.Errorf("a credential of mode %04o was opened", mode)
		}
	}
}

func TestNewKeeperFileIsPrivateAndNeverReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kek")
	if err := NewKeeperFile(path, rand.Reader); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %04o", info.Mode().Perm())
	}
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := OpenKeeper(path); err != nil {
		t.Error(err)
	}
	if err := NewKeeperFile(path, rand.Reader); err == nil {
		t.Error("the file was replaced")
	}
	after, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(before, after) {
		t.Errorf("the file has changed, %v", err)
	}
	missing := filepath.Join(t.TempDir(), "none")
	if err := NewKeeperFile(missing, strings.NewReader("short")); err == nil {
		t.Error("written without a whole key")
	}
	if _, err := os.Stat(missing); err == nil {
		t.Error("a file without a key stays")
	}
}
