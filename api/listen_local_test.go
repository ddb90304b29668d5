package api

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"authd/cluster/state"
)

// through asks through a local socket.
func through(t *testing.T, path, token string) (status int, body string) {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}}}
	r, err := http.NewRequestWithContext(t.Context(), "POST", "http://localhost/v1/tokens", strings.NewReader(`{"scope":"admin"}`))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	reply, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer reply.Body.Close()
	text, err := io.ReadAll(reply.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply.StatusCode, string(text)
}

func TestLocalSocketNeedsNoTokenAndIsForItsOwnerAlone(t *testing.T) {
	h := newHouse(t)
	path := filepath.Join(t.TempDir(), "api.sock")
	predecessor, _ := listening(t, ListenConfig{Handler: h.handler, Local: path})
	listening(t, ListenConfig{Handler: h.handler, Local: path})
	if err := predecessor.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != os.ModeSocket|0o600 {
		t.Fatalf("%v %v", info, err)
	}
	status, body := through(t, path, "")
	var made MadeToken
	if err := json.Unmarshal([]byte(body), &made); err != nil || status != http.StatusCreated {
		t.Fatalf("%d %s", status, body)
	}
	var last state.AuditEntry
	for e := range h.Machine().Audit(0) {
		last = *e
	}
	if last.Actor != localID {
		t.Errorf("in the audit it is %+v", last)
	}
	h.tokens["found again"] = string(made.Token)
	if a := h.as("found again", "GET", "/v1/tokens", ""); a.Code != http.StatusOK {
		t.Errorf("%d %s", a.Code, a.Body)
	}
	if status, _ := through(t, path, "authd_wrong"); status != http.StatusUnauthorized {
		t.Errorf("with a wrong token: %d", status)
	}
	if left, err := filepath.Glob(filepath.Join(filepath.Dir(path), ".api-*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %q %v", left, err)
	}
}

func TestLocalSocketThatCannotBeOpenedKeepsNothingFromStarting(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("d", 120))
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := listenLocal(filepath.Join(dir, "api.sock")); err == nil || !strings.Contains(err.Error(), "data_dir") {
		t.Errorf("%v", err)
	}
	listening(t, ListenConfig{Local: filepath.Join(dir, "api.sock")})
	listening(t, ListenConfig{Local: filepath.Join(t.TempDir(), "missing", "api.sock")})
}
