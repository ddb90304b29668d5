package keys

import (
	"bufio"
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Binding is the associated data of a sealed half: a ciphertext opens only for
// the key it was made for.
type Binding struct {
	Token    string // the claim's token, text form
	Selector string
	KeyID    uint32
}

// Keeper holds key-encryption keys. Built in: a file or systemd credential
// (OpenKeeper); a KMS fits behind it later. Safe for concurrent use.
type Keeper interface {
	// Seal encrypts a compact private half under the current key-encryption
	// key, with a fresh nonce from random. The version of that key is part of
	// the result and of the associated data.
	Seal(random io.Reader, b Binding, compact []byte) ([]byte, error)
	// Open decrypts what Seal made. It fails for another binding, for a version
	// it does not hold (the error says which) and for altered bytes.
	Open(b Binding, sealed []byte) ([]byte, error)
	// SealUnder is Seal under a version that need not be the current one.
	SealUnder(random io.Reader, version uint16, b Binding, compact []byte) ([]byte, error)
	// Versions are the key-encryption keys that it holds now, the current one last.
	Versions() []uint16
}

const (
	versionSize = 2
	nonceSize   = 12
	tagSize     = 16
	wrapKeySize = 32 // AES-256
)

// SealedOverhead is how much longer a sealed half is than its compact form:
// version, nonce and tag (AES-256-GCM).
const SealedOverhead = versionSize + nonceSize + tagSize

// SealedVersion is the version of the key-encryption key that a half was sealed
// under; 0 where it is no sealed half.
func SealedVersion(sealed []byte) uint16 {
	if len(sealed) < versionSize {
		return 0
	}
	return binary.BigEndian.Uint16(sealed)
}

// memoryKeeper is a Keeper whose key-encryption keys are in memory. Its fields
// never change. Random nonces are safe for 2^32 seals under one key (NIST SP
// 800-38D section 8.3), which is four thousand for each of a million domains.
type memoryKeeper struct {
	current  uint16
	versions map[uint16]cipher.AEAD
}

// NewMemoryKeeper is a keeper of one key-encryption key, version 1, for tests.
func NewMemoryKeeper(key [wrapKeySize]byte) Keeper {
	return &memoryKeeper{current: 1, versions: map[uint16]cipher.AEAD{1: newAEAD(key[:])}}
}

func newAEAD(key []byte) cipher.AEAD {
	block, err := aes.NewCipher(key)
	if err != nil {
		panic("keys: AES key of a checked size: " + err.Error())
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic("keys: AES-GCM: " + err.Error())
	}
	return aead
}

// Seal implements Keeper: version, nonce, ciphertext and tag.
func (k *memoryKeeper) Seal(random io.Reader, b Binding, compact []byte) ([]byte, error) {
	return k.SealUnder(random, k.current, b, compact)
}

// Versions implements Keeper.
func (k *memoryKeeper) Versions() []uint16 {
	list := make([]uint16, 0, len(k.versions))
	for v := range k.versions {
		if v != k.current {
			list = append(list, v)
		}
	}
	slices.Sort(list)
	return append(list, k.current)
}

// SealUnder implements Keeper.
func (k *memoryKeeper) SealUnder(random io.Reader, version uint16, b Binding, compact []byte) ([]byte, error) {
	aead, ok := k.versions[version]
	if !ok {
		return nil, fmt.Errorf("sealing private half: this node does not hold key-encryption key version %d", version)
	}
	if len(compact) == 0 {
		return nil, errors.New("sealing private half: it is empty")
	}
	sealed := make([]byte, versionSize+nonceSize, SealedOverhead+len(compact))
	binary.BigEndian.PutUint16(sealed, version)
	if _, err := io.ReadFull(random, sealed[versionSize:]); err != nil {
		return nil, fmt.Errorf("sealing private half: drawing nonce: %w", err)
	}
	return aead.Seal(sealed, sealed[versionSize:], compact, b.associated(version)), nil
}

// Open implements Keeper.
func (k *memoryKeeper) Open(b Binding, sealed []byte) ([]byte, error) {
	if len(sealed) <= SealedOverhead {
		return nil, fmt.Errorf("opening private half of key %d (%s): %d octets, more than %d wanted", b.KeyID, b.Selector, len(sealed), SealedOverhead)
	}
	version := binary.BigEndian.Uint16(sealed)
	aead, ok := k.versions[version]
	if !ok {
		return nil, fmt.Errorf("opening private half of key %d (%s): it needs key-encryption key version %d, which this node does not hold", b.KeyID, b.Selector, version)
	}
	compact, err := aead.Open(nil, sealed[versionSize:versionSize+nonceSize], sealed[versionSize+nonceSize:], b.associated(version))
	if err != nil {
		return nil, fmt.Errorf("opening private half of key %d (%s): it was altered, was sealed for another key, or key-encryption key version %d is another one here", b.KeyID, b.Selector, version)
	}
	return compact, nil
}

// associated encodes the binding and the version so that no two differ in meaning
// and agree in bytes: texts are preceded by their length.
func (b Binding) associated(version uint16) []byte {
	data := []byte("authd private half 1\x00")
	data = binary.BigEndian.AppendUint16(data, version)
	data = binary.BigEndian.AppendUint32(data, b.KeyID)
	data = appendString(data, b.Token)
	return appendString(data, b.Selector)
}

// String names the keeper without its keys.
func (k *memoryKeeper) String() string {
	return fmt.Sprintf("keeper of key-encryption key version %d", k.current)
}

// GoString is String.
func (k *memoryKeeper) GoString() string { return k.String() }

// Format is String, whatever the verb.
func (k *memoryKeeper) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, k.String()) }

// LogValue is String.
func (k *memoryKeeper) LogValue() slog.Value { return slog.StringValue(k.String()) }

// MarshalText is String.
func (k *memoryKeeper) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// maxKeeperFile bounds the file: each version takes about 50 octets.
const maxKeeperFile = 64 << 10

// readKeeper reads the file: lines "version base64(32
// bytes)", the last one current; lines that begin with # are notes. It refuses a
// file that others may read. A systemd credential (a file in
// CREDENTIALS_DIRECTORY) may show its group as a reader: systemd grants the
// service's user access by an ACL, whose mask stands in those bits.
func readKeeper(path string) (*memoryKeeper, fs.FileInfo, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, fmt.Errorf("opening key-encryption keys: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, nil, fmt.Errorf("opening key-encryption keys: %w", err)
	}
	if err := checkMode(path, info, os.Getenv("CREDENTIALS_DIRECTORY")); err != nil {
		return nil, nil, fmt.Errorf("opening key-encryption keys: %w", err)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxKeeperFile+1))
	defer clear(text)
	if err != nil {
		return nil, nil, fmt.Errorf("reading key-encryption keys: %w", err)
	}
	keeper, err := parseKeeper(text)
	if err != nil {
		return nil, nil, fmt.Errorf("reading key-encryption keys from %s: %w", path, err)
	}
	return keeper, info, nil
}

// checkMode refuses a file that anybody but its owner may touch.
func checkMode(path string, info fs.FileInfo, credentials string) error {
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a regular file", path)
	}
	refused := fs.FileMode(0o077)
	if credentials != "" && filepath.Dir(filepath.Clean(path)) == filepath.Clean(credentials) {
		refused = 0o037
	}
	if mode := info.Mode().Perm(); mode&refused != 0 {
		return fmt.Errorf("%s has mode %04o, so that others may use it: chmod 600 it, and replace the key if they could have read it", path, mode)
	}
	return nil
}

func parseKeeper(text []byte) (*memoryKeeper, error) {
	if len(text) > maxKeeperFile {
		return nil, fmt.Errorf("more than %d octets", maxKeeperFile)
	}
	k := &memoryKeeper{versions: map[uint16]cipher.AEAD{}}
	lines := bufio.NewScanner(strings.NewReader(string(text)))
	for number := 1; lines.Scan(); number++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if err := k.add(line); err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	if len(k.versions) == 0 {
		return nil, errors.New(`no key: want lines "version base64(32 bytes)"`)
	}
	return k, nil
}

// add reads one line. Errors never quote it: most of it is the key.
func (k *memoryKeeper) add(line string) error {
	fields := strings.Fields(line)
	if len(fields) != 2 {
		return fmt.Errorf("%d fields, want a version and a key", len(fields))
	}
	version, err := strconv.ParseUint(fields[0], 10, 16)
	if err != nil || version == 0 {
		return errors.New("version is not a number from 1 to 65535")
	}
	if _, twice := k.versions[uint16(version)]; twice {
		return fmt.Errorf("version %d twice", version)
	}
	key, err := base64.StdEncoding.Strict().DecodeString(fields[1])
	if err != nil {
		return fmt.Errorf("key of version %d is not base64", version)
	}
	defer clear(key)
	if len(key) != wrapKeySize {
		return fmt.Errorf("key of version %d has %d octets, want %d", version, len(key), wrapKeySize)
	}
	k.versions[uint16(version)] = newAEAD(key)
	k.current = uint16(version)
	return nil
}

// NewKeeperFile writes a fresh key-encryption key, version 1, to a new file of
// mode 0600, durably. It never replaces a file: what was sealed under a key that
// is gone is gone.
func NewKeeperFile(path string, random io.Reader) error {
	var key [wrapKeySize]byte
	defer clear(key[:])
	if _, err := io.ReadFull(random, key[:]); err != nil {
		return fmt.Errorf("making key-encryption key: %w", err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("writing key-encryption key: %w", err)
	}
	text := []byte("1 " + base64.StdEncoding.EncodeToString(key[:]) + "\n")
	defer clear(text)
	_, err = f.Write(text)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		// A half-written file would pass for a key later.
		return errors.Join(fmt.Errorf("writing key-encryption key: %w", err), os.Remove(path))
	}
	return nil
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
