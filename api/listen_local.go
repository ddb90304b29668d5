package api

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
)

// localID is who asks through the local socket without a token, in the audit.
const localID = "local"

// maxSocketPath is what unix(7) allows.
const maxSocketPath = 107

// listenLocal opens the API's local socket: a file that only the node's own user may
// use. Whoever can is that user or root, and could read the state and the
// key-encryption key as well, so no token is asked for. The socket of a predecessor
// at that path is replaced in one step; it is not removed at the end, when it may be
// a successor's.
func listenLocal(path string) (_ net.Listener, err error) {
	// Nobody reaches the socket before its mode is right.
	private, err := os.MkdirTemp(filepath.Dir(path), ".api-")
	if err != nil {
		return nil, fmt.Errorf("opening the API's local socket: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(private)) }()
	made := filepath.Join(private, "s")
	if len(made) > maxSocketPath {
		return nil, fmt.Errorf("opening the API's local socket: %s has %d octets, and the system takes %d; choose a shorter data_dir", made, len(made), maxSocketPath)
	}
	socket, err := net.ListenUnix("unix", &net.UnixAddr{Name: made, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("opening the API's local socket: %w", err)
	}
	socket.SetUnlinkOnClose(false)
	if err = os.Chmod(made, 0o600); err == nil {
		err = os.Rename(made, path)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("opening the API's local socket: %w", err), socket.Close())
	}
	return socket, nil
}

// local says whether a request came through the local socket.
func local(r *http.Request) bool {
	address, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	return ok && address.Network() == "unix"
}
