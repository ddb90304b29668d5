package keys

import "io"

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
}

// SealedOverhead is how much longer a sealed half is than its compact form:
// version, nonce and tag (AES-256-GCM).
const SealedOverhead = 2 + 12 + 16

// OpenKeeper reads key-encryption keys from a file: lines "version base64(32
// bytes)", the last one current. It refuses a file that others may read.
func OpenKeeper(path string) (Keeper, error) { panic("todo") }

// NewKeeperFile writes a fresh key-encryption key, version 1, to a new file of mode 0600.
func NewKeeperFile(path string, random io.Reader) error { panic("todo") }
