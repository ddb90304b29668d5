package keys

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"sync"
)

// fileKeeper is a Keeper of a file that may get another version while it is used:
// it is read again when it changed and somebody asks what it holds, or for a
// version that it did not hold. A file that does not read any more changes nothing.
type fileKeeper struct {
	path string
	mu   sync.Mutex // guards what follows
	held *memoryKeeper
	seen fs.FileInfo
	// fault is why the file could not be read the last time; nil: it could.
	fault error
}

// OpenKeeper reads key-encryption keys from a file: lines "version base64(32
// bytes)", the last one current; lines that begin with # are notes. It refuses a
// file that others may read. A systemd credential (a file in
// CREDENTIALS_DIRECTORY) may show its group as a reader: systemd grants the
// service's user access by an ACL, whose mask stands in those bits.
func OpenKeeper(path string) (Keeper, error) {
	held, seen, err := readKeeper(path)
	if err != nil {
		return nil, err
	}
	return &fileKeeper{path: path, held: held, seen: seen}, nil
}

func (k *fileKeeper) now(again bool) *memoryKeeper {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !again {
		return k.held
	}
	info, err := os.Stat(k.path)
	k.fault = err
	if err != nil || os.SameFile(info, k.seen) && info.ModTime().Equal(k.seen.ModTime()) && info.Size() == k.seen.Size() {
		return k.held
	}
	held, seen, err := readKeeper(k.path)
	if k.fault = err; err == nil {
		k.held, k.seen = held, seen
	}
	return k.held
}

// Fault implements Faulty: the file is gone or does not read any more, so that the
// keys held would be missing at the next start.
func (k *fileKeeper) Fault() error {
	k.now(true)
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.fault
}

// Seal implements Keeper.
func (k *fileKeeper) Seal(random io.Reader, b Binding, compact []byte) ([]byte, error) {
	return k.now(false).Seal(random, b, compact)
}

// SealUnder implements Keeper.
func (k *fileKeeper) SealUnder(random io.Reader, version uint16, b Binding, compact []byte) ([]byte, error) {
	return k.holding(version).SealUnder(random, version, b, compact)
}

// Open implements Keeper.
func (k *fileKeeper) Open(b Binding, sealed []byte) ([]byte, error) {
	return k.holding(SealedVersion(sealed)).Open(b, sealed)
}

// Versions implements Keeper.
func (k *fileKeeper) Versions() []uint16 { return k.now(true).Versions() }

// holding looks into the file again where a version is not known.
func (k *fileKeeper) holding(version uint16) *memoryKeeper {
	held := k.now(false)
	if _, ok := held.versions[version]; ok {
		return held
	}
	return k.now(true)
}

// String names the keeper without its keys.
func (k *fileKeeper) String() string { return k.now(false).String() }

// GoString is String.
func (k *fileKeeper) GoString() string { return k.String() }

// Format is String, whatever the verb.
func (k *fileKeeper) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, k.String()) }

// LogValue is String.
func (k *fileKeeper) LogValue() slog.Value { return slog.StringValue(k.String()) }

// MarshalText is String.
func (k *fileKeeper) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// AddKeeperVersion adds a fresh key-encryption key to a file, as its current one,
// and says which version it is. The file is replaced as a whole, durably, with its
// mode. Nothing is sealed under it before the cluster is told to.
func AddKeeperVersion(path string) (uint16, error) {
	held, info, err := readKeeper(path)
	if err != nil {
		return 0, err
	}
	next := 0
	for _, v := range held.Versions() {
		next = max(next, int(v)+1)
	}
	if next > 1<<16-1 {
		return 0, errors.New("adding key-encryption key: versions are used up")
	}
	text, err := os.ReadFile(path)
	defer clear(text)
	if err != nil {
		return 0, fmt.Errorf("adding key-encryption key: %w", err)
	}
	var key [wrapKeySize]byte
	defer clear(key[:])
	_, _ = rand.Read(key[:]) // never fails: crypto/rand
	if len(text) > 0 && text[len(text)-1] != '\n' {
		text = append(text, '\n')
	}
	text = append(text, strconv.Itoa(next)+" "+base64.StdEncoding.EncodeToString(key[:])+"\n"...)
	f, err := os.CreateTemp(filepath.Dir(path), ".kek-*")
	if err != nil {
		return 0, fmt.Errorf("adding key-encryption key: %w", err)
	}
	_, err = f.Write(text)
	err = errors.Join(err, f.Chmod(info.Mode().Perm()), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		return 0, errors.Join(fmt.Errorf("adding key-encryption key: %w", err), os.Remove(f.Name()))
	}
	return uint16(next), nil
}
